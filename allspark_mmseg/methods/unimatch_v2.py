"""UniMatch V2: a teacher, and two strong views whose channels complement each other."""

import torch
from torch import Tensor

from ..registry import MODELS
from .fixmatch import FixMatch


@MODELS.register_module()
class UniMatchV2(FixMatch):
    r"""UniMatch V2 (Yang et al., TPAMI 2025, arXiv 2410.10777).

    .. code-block:: text

        pseudo     = max softmax teacher(weak)
        s_1, s_2   = two strong views, each with a CutMix of its own
        z_1, z_2   = decode(complementary dropout(encode([s_1, s_2])))
        loss       = w_l CE(student(labeled), mask) + w_s (L(z_1) + L(z_2))
        teacher   <- average of student and teacher, after the step

    L is FixMatch's loss on confident pixels.

    Args:
        segmentor: config of the student.
        teacher: arguments of ``Teacher``; its defaults are the release's.
        strong_weight: w_s, of each strong view's loss.
        no_dropout_ratio: share of the pairs of strong views without dropout, in [0, 1].
        kwargs: as in ``FixMatch``.

    Raises:
        ValueError: ``no_dropout_ratio`` is not in [0, 1].
    """

    strong_views = ('strong_1', 'strong_2')

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        strong_weight: float = 0.25,
        no_dropout_ratio: float = 0.5,
        **kwargs,
    ):
        if not 0 <= no_dropout_ratio <= 1:
            raise ValueError(
                f'UniMatchV2: no_dropout_ratio is {no_dropout_ratio}, expected a share in [0, 1].'
            )
        super().__init__(segmentor, teacher=teacher or {}, strong_weight=strong_weight, **kwargs)
        self.no_dropout_ratio = no_dropout_ratio

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step.

        Args:
            inputs: the views needed, ``labeled`` (Bl, 3, H, W), the others (Bu, 3, H, W).
            data_samples: as in ``FixMatch``.

        Returns:
            dict: ``sup.*``, ``unsup.loss_strong_1`` and ``unsup.loss_strong_2``, weighted; ``log_statistics``'s
            numbers.
        """
        labeled, weak, *_ = self.select_views(inputs, *self.needed_views)
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))
        strong, mix_labels = self.mix(inputs, data_samples)
        features = self.extract_feat(labeled)
        logits = self.decode_head(features)
        strong_features = complementary_dropout(self.extract_feat(torch.cat(strong)), self.no_dropout_ratio)
        strong_logits = self.decode_head(strong_features).chunk(2)

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        losses.update(self.strong_losses(strong_logits, mix_labels(pseudo)))
        return losses | self.log_statistics(pseudo)

    def check_input_size(self, images: Tensor) -> None:
        """Check that the features of images (N, 3, H, W) can be perturbed."""
        self.check_perturbable(images)


def complementary_dropout(features: list[Tensor], no_dropout_ratio: float = 0.5) -> list[Tensor]:
    """Drop each channel in one of the two images of a pair, and double it in the other (section 3.3).

    Levels of equal width share the draw, as the release's four do; a level of another width has its own.

    Args:
        features: (2B, C_i, h_i, w_i), the pairs being images i and B + i.
        no_dropout_ratio: share of the pairs, rounded down to whole ones, that are left as they are.

    Returns:
        list[Tensor]: like ``features``.
    """
    pairs, device = len(features[0]) // 2, features[0].device
    kept = (torch.randperm(pairs, device=device) < int(pairs * no_dropout_ratio))[:, None]
    masks = {}
    for width in dict.fromkeys(feature.shape[1] for feature in features):
        first = 2.0 * torch.randint(2, (pairs, width), device=device)
        masks[width] = torch.cat([first, 2 - first]).masked_fill(kept.repeat(2, 1), 1)[:, :, None, None]
    return [feature * masks[feature.shape[1]].to(feature.dtype) for feature in features]
