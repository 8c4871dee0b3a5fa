"""FixMatch for segmentation, with CutMix, as UniMatch's authors state it."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..mixing import CutMix, paste, paste_labels
from ..pseudo_label import PseudoLabel, check_threshold, masked_cross_entropy
from ..registry import MODELS
from .semi_segmentor import SemiSegmentor, eval_mode

MIX_SOURCES = ('batch', 'same_image')


@MODELS.register_module()
class FixMatch(SemiSegmentor):
    r"""FixMatch (arXiv 2001.07685) as UniMatch (CVPR 2023, arXiv 2208.09910) states it in section 3.1.

    .. code-block:: text

        pseudo, confidence = max softmax student(weak), in training mode; or teacher(weak), if there is one
        strong, pseudo     = CutMix with another image
        loss               = w_l CE(student(labeled), mask)
                             + w_s sum_i [confidence_i >= threshold] CE(student(strong)_i, pseudo_i) / n

    n counts all pixels that are not padding, confident or not: few confident ones make a small loss. With a
    teacher it is UniMatch V2's FixMatch (arXiv 2410.10777).

    Args:
        segmentor: config of the student.
        threshold: confidence from which a pixel counts, in [0, 1].
        labeled_weight: w_l, of the supervised losses.
        strong_weight: w_s, of each strong view's loss.
        cutmix: arguments of ``CutMix``.
        mix_source: what is pasted: ``'batch'``, the batch in reverse order (a batch of one stays as it is),
            or ``'same_image'``, another view of the same image, as UniMatch's release does: views
            ``mix_weak`` and ``mix_strong_1``, the former labeled in eval mode.
        ignore_padding: pixels that padding added do not count, as released; needs ``LoadEmptyAnnotations``.
        kwargs: as in ``SemiSegmentor``.

    Raises:
        ValueError: ``threshold`` is not in [0, 1], or ``mix_source`` is unknown.
    """

    strong_views = ('strong_1',)

    def __init__(
        self,
        segmentor: dict,
        *,
        threshold: float = 0.95,
        labeled_weight: float = 0.5,
        strong_weight: float = 0.5,
        cutmix: Mapping | None = None,
        mix_source: str = 'batch',
        ignore_padding: bool = True,
        **kwargs,
    ):
        name = type(self).__name__
        check_threshold(name, threshold)
        if mix_source not in MIX_SOURCES:
            raise ValueError(f'{name}: mix_source is {mix_source!r}, expected one of {MIX_SOURCES}.')
        super().__init__(segmentor, **kwargs)
        self.threshold = threshold
        self.labeled_weight = labeled_weight
        self.strong_weight = strong_weight
        self.cutmix = CutMix(**(cutmix or {}))
        self.mix_source = mix_source
        self.ignore_padding = ignore_padding

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak``, the strong views and those to paste."""
        unlabeled = ('weak', *self.strong_views)
        pasted = (f'mix_{view}' for view in unlabeled) if self.mix_source == 'same_image' else ()
        return ('labeled', *unlabeled, *pasted)

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step.

        Args:
            inputs: the views needed, ``labeled`` (Bl, 3, H, W), the others (Bu, 3, H, W).
            data_samples: {view: samples}; those of ``labeled`` hold masks, those of ``weak`` and ``mix_weak``
                ``LoadEmptyAnnotations``'s maps.

        Returns:
            dict: ``sup.*`` and ``unsup.loss_strong_1``, weighted; ``log_statistics``'s numbers.
        """
        labeled, weak, *_ = self.select_views(inputs, *self.needed_views)
        (strong,), mix_labels = self.mix(inputs, data_samples)
        if self.teacher is None:
            features = self.extract_feat(torch.cat([labeled, weak]))
            logits = self.decode_head(features)
            pseudo = self.label_from(logits[len(labeled) :], weak, data_samples)
            strong_logits = self.decode_head(self.extract_feat(strong))
        else:
            pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))
            features = self.extract_feat(torch.cat([labeled, strong]))
            logits = self.decode_head(features)
            strong_logits = logits[len(labeled) :]
        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        losses.update(self.strong_losses([strong_logits], mix_labels(pseudo)))
        return losses | self.log_statistics(pseudo)

    def mix(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> tuple[list[Tensor], Callable]:
        """Draw boxes and mix the strong views.

        Args:
            inputs: as in ``loss``.
            data_samples: as in ``loss``.

        Returns:
            tuple: the mixed views, each (Bu, 3, H, W); a function from the images' pseudo-labels to those of
            each mixed view.
        """
        count, _, *size = inputs['weak'].shape
        boxes = [self.cutmix.draw(count, size, inputs['weak'].device) for _ in self.strong_views]
        if self.mix_source == 'batch':
            others = [inputs[view].flip(0) for view in self.strong_views]
        else:
            others = [inputs[f'mix_{view}'] for view in self.strong_views]
            # before the student trains on this batch: it moves the running statistics
            pasted = self.make_pseudo_labels(
                inputs['mix_weak'], self.threshold, self.padding_mask(data_samples, 'mix_weak')
            )

        def mix_labels(pseudo: PseudoLabel) -> list[PseudoLabel]:
            other = pasted if self.mix_source == 'same_image' else pseudo.map(lambda part: part.flip(0))
            return [paste_labels(pseudo, other, box) for box in boxes]

        mixed = [
            paste(inputs[view], other, box)
            for view, other, box in zip(self.strong_views, others, boxes, strict=True)
        ]
        return mixed, mix_labels

    def label_from(self, logits: Tensor, weak: Tensor, data_samples: dict[str, list]) -> PseudoLabel:
        """Label the weak view (Bu, 3, H, W) from its own logits (Bu, K, h, w) of the training pass."""
        padding = self.padding_mask(data_samples, 'weak')
        return PseudoLabel.from_logits(self.resize_to_input(logits, weak.shape[2:]), self.threshold, padding)

    @torch.no_grad()
    def check_perturbable(self, images: Tensor) -> None:
        """Check that channels can be dropped from the features of images (N, 3, H, W).

        Raises:
            ValueError: they are not all maps (N, C, h, w).
        """
        with eval_mode(self.student):
            features = self.extract_feat(images)
        strange = {
            level: type(feature).__name__ if not isinstance(feature, Tensor) else tuple(feature.shape)
            for level, feature in enumerate(features)
            if not (isinstance(feature, Tensor) and feature.ndim == 4)
        }
        if strange:
            raise ValueError(
                f'{type(self).__name__} drops channels from the features, but those that enter the '
                f'{type(self.decode_head).__name__} are, by level, {strange}; expected maps (N, C, h, w). '
                'Take a backbone without class tokens (output_cls_token=False), or FixMatch, which perturbs '
                'images alone.'
            )

    def strong_losses(self, logits: Sequence[Tensor], labels: list[PseudoLabel]) -> dict[str, Tensor]:
        """``unsup.loss_strong_*``, weighted, from each strong view's logits (N, K, h, w) and labels."""
        return {
            f'unsup.loss_{view}': self.strong_weight * self.unsupervised_loss(of_view, mixed)
            for view, of_view, mixed in zip(self.strong_views, logits, labels, strict=True)
        }

    def unsupervised_loss(self, logits: Tensor, pseudo: PseudoLabel) -> Tensor:
        """Cross-entropy of the confident pixels, averaged over all that are not padding.

        Args:
            logits: (N, K, h, w).
            pseudo: the labels, at the size of the images.

        Returns:
            Tensor: scalar.
        """
        return masked_cross_entropy(
            self.resize_to_input(logits, pseudo.label.shape[1:]), pseudo.target, pseudo.image_mask
        )
