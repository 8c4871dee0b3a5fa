"""Self-training with online pseudo-labels: AllSpark's semi-supervised baseline."""

import torch
from mmseg.models.utils import resize
from torch import Tensor

from ..pseudo_label import PseudoLabel, masked_cross_entropy, padded_pixels
from ..registry import MODELS
from .semi_segmentor import SemiSegmentor


@MODELS.register_module()
class SelfTraining(SemiSegmentor):
    """The network labels the unlabelled images of each batch itself, and learns from its own labels.

    Plain pseudo-labelling as the AllSpark paper uses it (arXiv 2403.01818, section 3.1): the label is the
    argmax of an eval-mode pass over the very same image, without threshold or strong view.

    Args:
        segmentor: config of the student.
        labeled_weight: weight of the supervised losses; the paper's is 0.5.
        unlabeled_weight: weight of the loss on pseudo-labels; the paper's is 0.5.
        ignore_padding: leave pixels that padding added out of the loss on pseudo-labels; the releases of
            AllSpark and its baseline train on them. Needs ``BlankSegMap`` in the unlabelled pipeline.
        kwargs: as in ``SemiSegmentor``.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        labeled_weight: float = 0.5,
        unlabeled_weight: float = 0.5,
        ignore_padding: bool = False,
        **kwargs,
    ):
        super().__init__(segmentor, **kwargs)
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.ignore_padding = ignore_padding
        # the latest pseudo-labels' class shares, for the log alone
        self.register_buffer('pseudo_share', torch.zeros(self.num_classes), persistent=False)

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step.

        Args:
            inputs: views ``labeled`` (Bl, 3, H, W) and ``weak`` (Bu, 3, H, W).
            data_samples: {view: samples}; those of ``labeled`` hold masks, those of ``weak`` hold
                ``BlankSegMap``'s maps if padding is to be ignored.

        Returns:
            dict: ``sup.*`` and ``unsup.loss_ce``, weighted; ``pseudo.confidence`` (mean, in [0, 1]) and
            ``pseudo.classes`` (number of classes that more than 0.1 % of the pixels have).
        """
        labeled, weak = self.views(inputs, 'labeled', 'weak')
        padding = padded_pixels(data_samples['weak']) if self.ignore_padding else None
        pseudo = self.pseudo_label(weak, padding)
        features = self.extract_feat(torch.cat([labeled, weak]))
        logits = self.decode(features, len(labeled), pseudo).float()  # mixed precision ends before the losses

        of_labeled = [feature[: len(labeled)] for feature in features]
        losses = self.supervised_loss(of_labeled, logits[: len(labeled)], data_samples['labeled'])
        losses = {
            name: value * self.labeled_weight if 'loss' in name else value for name, value in losses.items()
        }
        unlabeled_logits = resize(
            logits[len(labeled) :], weak.shape[2:], mode='bilinear', align_corners=self.align_corners
        )
        losses['unsup.loss_ce'] = self.unlabeled_weight * masked_cross_entropy(
            unlabeled_logits, pseudo.target
        )
        self.pseudo_share.copy_(pseudo.class_share())
        losses['pseudo.confidence'] = pseudo.confidence.mean()
        losses['pseudo.classes'] = (self.pseudo_share > 1e-3).sum().float()
        return losses

    def decode(self, features: list[Tensor], num_labeled: int, pseudo: PseudoLabel) -> Tensor:
        """Logits (Bl + Bu, K, h, w) of labelled and unlabelled features, labelled first."""
        return self.decode_head(features)

    def decode_unlabeled(self, features: list[Tensor]) -> Tensor:
        """Logits (Bu, K, h, w) of unlabelled features in the pseudo-label pass."""
        return self.decode_head(features)

    @torch.no_grad()
    def pseudo_label(self, images: Tensor, padding: Tensor | None = None) -> PseudoLabel:
        """Label images by the student in eval mode.

        Args:
            images: (N, 3, H, W).
            padding: (N, H, W) bool, pixels that are no part of the image.

        Returns:
            PseudoLabel: at the size of the images.
        """
        was_training = self.student.training
        self.student.eval()
        logits = self.decode_unlabeled(self.extract_feat(images))
        self.student.train(was_training)
        # in mixed precision a label would otherwise be decided among rounded logits
        logits = resize(logits.float(), images.shape[2:], mode='bilinear', align_corners=self.align_corners)
        return PseudoLabel.from_logits(logits, padding=padding)
