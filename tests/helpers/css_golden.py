"""CSS methods on the recorded outputs of golden vectors."""

from unittest import mock

import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import nn

from allspark_mmseg.methods.css import Targets
from allspark_mmseg.methods.css import css as css_module
from allspark_mmseg.methods.css.contrast import class_counts

from .golden import assert_close_to_largest
from .tiny_models import build_model

TIGHT = 1e-6  # float32, relative to the largest value
METHODS = dict(mix='CSSMix', cross='CSSCross', baseline='CSSBaseline')


def to_255(label: torch.Tensor) -> torch.Tensor:
    """Labels of the vectors, whose -1 is ignored."""
    label = label.long()
    return label.masked_fill(label < 0, 255)


def close(actual: torch.Tensor, expected: torch.Tensor, what: str = '', tolerance: float = TIGHT) -> None:
    assert actual.shape == expected.shape, what
    if not actual.numel():
        return
    assert_close_to_largest(actual.detach().double(), expected.double(), tolerance, what)


@MMSEG_MODELS.register_module()
class RecordedFeatures(nn.Module):
    """Passes images on as features."""

    def forward(self, images):
        return [images]


@MMSEG_MODELS.register_module()
class RecordedCSSHead(BaseDecodeHead):
    """Answers with the outputs recorded for an image, which is known by its first value."""

    def __init__(self, num_classes: int, representation_channels: int, loss_decode: dict):
        super().__init__(
            in_channels=3, channels=3, num_classes=num_classes, align_corners=True, loss_decode=loss_decode
        )
        self.representation_channels = representation_channels
        self.answers: dict[int, tuple] = {}

    def forward(self, features):
        return self.forward_with_representations(features)[0]

    def forward_with_representations(self, features):
        return self.answers[int(features[0].flatten()[0])]


LABELED, WEAK, STRONG = 1, 2, 3


def recorded_step(vectors: dict, method: str, **arguments):
    """A method on recorded outputs, and the outputs of its student that shall get gradients."""
    classes, channels = vectors['prototypes_before'].shape
    ohem = vectors.get('ohem_min_kept')
    loss_decode = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    if ohem is not None:
        loss_decode = dict(
            type='allspark_mmseg.OHEMCrossEntropyLoss',
            threshold=float(vectors['ohem_thresh']),
            min_kept=int(ohem),
        )
    head = dict(
        type='RecordedCSSHead',
        num_classes=classes,
        representation_channels=channels,
        loss_decode=loss_decode,
    )
    model = build_model(
        dict(
            type=f'allspark_mmseg.{method}',
            segmentor=dict(
                type='EncoderDecoder',
                backbone=dict(type='RecordedFeatures'),
                decode_head=head,
                test_cfg=dict(mode='whole'),
            ),
            **arguments,
        )
    ).train()
    model.prototypes.value.copy_(vectors['prototypes_before'])
    model.prototypes.seen.fill_(True)
    outputs = {
        name: vectors[f'student.{name}'].clone().requires_grad_()
        for name in ('pred_labeled', 'rep_labeled', 'pred_unlabeled', 'rep_unlabeled')
        if f'student.{name}' in vectors
    }
    prediction = vectors['teacher.pred']
    unused = prediction.new_ones(len(prediction), channels, *prediction.shape[2:])
    representations = vectors.get('teacher.rep', unused)
    model.teacher.module.decode_head.answers = {
        LABELED: (prediction, representations),
        WEAK: (prediction, representations),
    }
    if outputs:
        model.decode_head.answers = {
            LABELED: (outputs['pred_labeled'], outputs['rep_labeled']),
            STRONG: (outputs['pred_unlabeled'], outputs['rep_unlabeled']),
        }
    return model, outputs


def images(value: int, like: torch.Tensor) -> torch.Tensor:
    return torch.full((len(like), 3, *like.shape[1:]), float(value))


def step_arguments(vectors: dict, method: str, steps: dict) -> dict:
    arguments = dict(
        threshold=float(steps['un_threshold']),
        weak_threshold=float(steps['weak_threshold']),
        hard_threshold=float(vectors['strong_threshold']),
        contrast_temperature=float(steps['tau_c']),
        prototype_momentum=1 - float(steps['alpha']),
    )
    if method != 'CSSBaseline':
        arguments.update(
            similarity_temperature=float(vectors['tau_s']), contrast_ramp_down=int(steps['ramp_max_epoch'])
        )
    if method == 'CSSCross':
        arguments.update(warm_up=int(steps['cross_warmup']))
    return arguments


def teacher_targets(model, vectors: dict) -> Targets:
    size = vectors['pseudo.label_cls'].shape[1:]
    prediction, representations = model.teacher.module.decode_head.answers[WEAK]
    return model.make_targets(prediction, representations, size, None)[0]


def expected_targets(vectors: dict, stage: str, method: str, warming: bool) -> Targets:
    """The recorded label of the classifier and of the contrast, before or after the augmentation."""
    if method == 'CSSMix':
        kinds = [('label_mix', 'conf_cls')]
    elif method == 'CSSCross':
        kinds = [
            ('label_cls', 'conf_cls') if warming else ('label_rep', 'conf_rep'),
            ('label_cls', 'conf_cls'),
        ]
    else:
        kinds = [('label_cls', 'conf_cls')]
    return Targets(
        torch.stack([to_255(vectors[f'{stage}.{label}']) for label, _ in kinds], 1),
        torch.stack([vectors[f'{stage}.{confidence}'] for _, confidence in kinds], 1),
    )


def run_step(vectors: dict, method: str, model, warming: bool = False) -> tuple[dict, dict]:
    """Run ``loss`` with the recorded strong view and draws; return the losses and what the parts got."""
    strong = expected_targets(vectors, 'strong', method, warming)
    given = {}

    def make_strong_view(view, targets, *_):
        given['targets'] = targets
        return images(STRONG, strong.label[:, 0]), strong

    def draw_pixels(label, hard, probability, *_):
        given.update(label=label, hard=hard, probability=probability)
        return vectors['contrast.queries'].long(), vectors['contrast.negatives'].long()

    label = to_255(vectors['label'])
    samples = [SegDataSample(gt_sem_seg=PixelData(data=mask[None])) for mask in label]
    views = dict(labeled=images(LABELED, label), weak=images(WEAK, label), strong_1=images(WEAK, label))
    with (
        mock.patch.object(css_module, 'make_strong_view', make_strong_view),
        mock.patch.object(css_module, 'draw_pixels', draw_pixels),
    ):
        return model.loss(views, dict(labeled=samples)), given


def flat_label(onehot: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(P,) labels from (N, K, h, w) one-hot labels and (N, 1, h, w) masks."""
    counted = (onehot * mask).bool()
    assert counted.sum(1).max() <= 1
    return counted.long().argmax(1).masked_fill(~counted.any(1), 255).flatten()


def assert_contrast_inputs(given: dict, vectors: dict, threshold: float, temperature: float, model) -> None:
    label = flat_label(vectors['contrast.onehot'], vectors['contrast.mask'])
    assert torch.equal(given['label'], label)
    valid, hard = vectors['contrast.valid_and_hard'].long().unbind(1)
    assert torch.equal(class_counts(label, len(valid)), valid)
    assert torch.equal(class_counts(label.masked_fill(~given['hard'], 255), len(valid)), hard)
    indicator = vectors['indicator'].movedim(1, 0).flatten(1)
    own = indicator.gather(0, label.clamp(max=len(valid) - 1)[None])[0]
    assert torch.equal(given['hard'][label < 255], (own < threshold)[label < 255])
    assert_probability(given['probability'], vectors['contrast.negative_class_prob'])


def assert_probability(actual: torch.Tensor, expected: torch.Tensor) -> None:
    recorded = expected.any(dim=1)  # of the classes that have a query
    close(actual[recorded], expected[recorded], 'negative_class_prob')
