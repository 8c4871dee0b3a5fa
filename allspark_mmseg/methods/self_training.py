"""Self-training with online pseudo-labels: AllSpark's semi-supervised baseline."""

import torch
from torch import Tensor

from ..pseudo_label import PseudoLabel, check_threshold, masked_cross_entropy
from ..registry import MODELS
from .semi_segmentor import SemiSegmentor


@MODELS.register_module()
class SelfTraining(SemiSegmentor):
    """The network labels the unlabeled images of each batch itself, and learns from its own labels.

    Plain pseudo-labeling as the AllSpark paper uses it (arXiv 2403.01818, section 3.1): the label is the
    argmax of an eval-mode pass over the very same image, without threshold or strong view, unless given.

    Args:
        segmentor: config of the student.
        labeled_weight: weight of the supervised losses; the paper's is 0.5.
        unlabeled_weight: weight of the loss on pseudo-labels; the paper's is 0.5.
        unlabeled_view: the view that is learned from; labels are always made from ``weak``.
        threshold: confidence from which a pixel counts, in [0, 1]; the loss is averaged over those that do.
        ignore_padding: leave pixels that padding added out of the loss on pseudo-labels; the releases of
            AllSpark and its baseline train on them. Needs ``LoadEmptyAnnotations`` in the unlabeled pipeline.
        kwargs: as in ``SemiSegmentor``; with a teacher, the labels are the teacher's.

    Raises:
        ValueError: ``threshold`` is not in [0, 1].
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        labeled_weight: float = 0.5,
        unlabeled_weight: float = 0.5,
        unlabeled_view: str = 'weak',
        threshold: float = 0.0,
        ignore_padding: bool = False,
        **kwargs,
    ):
        check_threshold(type(self).__name__, threshold)
        super().__init__(segmentor, **kwargs)
        self.unlabeled_view = unlabeled_view
        self.threshold = threshold
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.ignore_padding = ignore_padding

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak`` and the view to be learned from."""
        return ('labeled', 'weak', self.unlabeled_view)

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step.

        Args:
            inputs: views ``labeled`` (Bl, 3, H, W), ``weak`` (Bu, 3, H, W), and that to be learned from.
            data_samples: {view: samples}; those of ``labeled`` hold masks, those of ``weak`` hold
                ``LoadEmptyAnnotations``'s maps if padding is to be ignored.

        Returns:
            dict: ``sup.*`` and ``unsup.loss_ce``, weighted; ``log_statistics``'s numbers.
        """
        labeled, weak, unlabeled = self.select_views(inputs, *self.needed_views)
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))
        features = self.extract_feat(torch.cat([labeled, unlabeled]))
        logits = self.decode(features, len(labeled), pseudo)
        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        unlabeled_logits = self.resize_to_input(logits[len(labeled) :], unlabeled.shape[2:])
        losses['unsup.loss_ce'] = self.unlabeled_weight * self.unsupervised_loss(unlabeled_logits, pseudo)
        losses.update(self.log_statistics(pseudo))
        return losses

    def unsupervised_loss(self, logits: Tensor, pseudo: PseudoLabel) -> Tensor:
        """Cross-entropy (scalar) of logits (N, K, H, W) on pseudo-labels, averaged over those that count."""
        return masked_cross_entropy(logits, pseudo.target)

    def decode(self, features: list[Tensor], num_labeled: int, pseudo: PseudoLabel) -> Tensor:
        """Logits (Bl + Bu, K, h, w) of labeled and unlabeled features, labeled first."""
        return self.decode_head(features)
