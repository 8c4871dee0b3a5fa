"""UniMatch: two strong views and a perturbation of the features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import MODELS
from .fixmatch import FixMatch


@MODELS.register_module()
class UniMatch(FixMatch):
    r"""UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910).

    .. code-block:: text

        z_x, z_w  = decode(encode([labeled, weak]))           one pass of the decoder together with
        z_fp      = decode(channel dropout(encode(weak)))      the perturbed features of both
        pseudo    = max softmax z_w                            (the teacher's, if there is one)
        s_1, s_2  = two strong views, each with a CutMix of its own
        loss      = w_l CE(z_x, mask) + w_s (L(s_1) + L(s_2)) + w_p L(z_fp)

    L is FixMatch's loss on confident pixels. Any decode head can be perturbed, since it is the features that
    enter it that are; all levels are, each with a draw of its own.

    Args:
        segmentor: config of the student.
        strong_weight: w_s, of each strong view's loss.
        perturbed_weight: w_p, of the loss on perturbed features.
        drop_rate: probability with which a channel of a feature is dropped, in [0, 1).
        kwargs: as in ``FixMatch``.

    Raises:
        ValueError: ``drop_rate`` is not in [0, 1).
    """

    strong_views = ('strong_1', 'strong_2')

    def __init__(
        self,
        segmentor: dict,
        *,
        strong_weight: float = 0.125,
        perturbed_weight: float = 0.25,
        drop_rate: float = 0.5,
        **kwargs,
    ):
        if not 0 <= drop_rate < 1:
            raise ValueError(f'UniMatch: drop_rate is {drop_rate}, expected a probability in [0, 1).')
        super().__init__(segmentor, strong_weight=strong_weight, **kwargs)
        self.perturbed_weight = perturbed_weight
        self.drop_rate = drop_rate

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step.

        Args:
            inputs: the views needed, ``labeled`` (Bl, 3, H, W), the others (Bu, 3, H, W).
            data_samples: as in ``FixMatch``.

        Returns:
            dict: ``sup.*``, ``unsup.loss_strong_1``, ``unsup.loss_strong_2`` and ``unsup.loss_perturbed``,
            weighted; ``log_statistics``'s numbers.
        """
        labeled, weak, *_ = self.select_views(inputs, *self.needed_views)
        strong, mix_labels = self.mix(inputs, data_samples)
        features = self.extract_feat(torch.cat([labeled, weak]))
        # labeled ones too, although only unlabeled ones count: the decoder's norms see all, as released
        perturbed = [F.dropout2d(feature, self.drop_rate) for feature in features]
        logits = self.decode_head([torch.cat(pair) for pair in zip(features, perturbed, strict=True)])
        logits, of_perturbed = logits.chunk(2)
        if self.teacher is None:
            pseudo = self.label_from(logits[len(labeled) :], weak, data_samples)
        else:
            pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))
        strong_logits = self.decode_head(self.extract_feat(torch.cat(strong))).chunk(2)

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        losses.update(self.strong_losses(strong_logits, mix_labels(pseudo)))
        losses['unsup.loss_perturbed'] = self.perturbed_weight * self.unsupervised_loss(
            of_perturbed[len(labeled) :], pseudo
        )
        return losses | self.log_statistics(pseudo)

    def check_input_size(self, images: Tensor) -> None:
        """Check that the features of images (N, 3, H, W) can be perturbed."""
        self.check_perturbable(images)
