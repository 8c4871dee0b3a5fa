"""CSS against vectors of its release: the parts, and whole steps on recorded outputs."""

import json
import re

import pytest
import torch
from mmengine.optim import PolyLR
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import nn

from allspark_mmseg.losses import OHEMCrossEntropyLoss
from allspark_mmseg.methods.css import (
    ClassPrototypes,
    Rescale,
    Targets,
    contrastive_loss,
    flipped,
    negative_classes,
    prototypes,
)
from allspark_mmseg.methods.css.contrast import class_counts
from allspark_mmseg.mixing import paste
from allspark_mmseg.teacher import Teacher

from ..conftest import GOLDEN, assert_close_to_largest, under
from ..method_contract import build_model, losses_in

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
    return model.targets(prediction, representations, size, None)[0]


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
    """``loss`` with the recorded strong view and draws; returns the losses and what the parts were given."""
    strong = expected_targets(vectors, 'strong', method, warming)
    given = {}

    def strong_view(view, targets):
        given['targets'] = targets
        return images(STRONG, strong.label[:, 0]), strong

    def draw(label, hard, probability):
        given.update(label=label, hard=hard, probability=probability)
        return vectors['contrast.queries'].long(), vectors['contrast.negatives'].long()

    model.strong_view, model.draw = strong_view, draw
    label = to_255(vectors['label'])
    samples = [SegDataSample(gt_sem_seg=PixelData(data=mask[None])) for mask in label]
    views = dict(labeled=images(LABELED, label), weak=images(WEAK, label), strong_1=images(WEAK, label))
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


STEPS = ['mix.0', 'mix.1', 'cross.0', 'cross.1', 'baseline.0']


@pytest.mark.parametrize('name', STEPS)
def test_a_step_is_that_of_the_release(golden, name):
    everything = golden('css')
    steps = under(everything, 'steps.')
    method = METHODS[name.split('.')[0]]
    vectors = under(everything, f'{name}.') | dict(ohem_thresh=steps['ohem_thresh'])
    model, outputs = recorded_step(vectors, method, **step_arguments(vectors, method, steps))
    epoch = int(vectors['epoch'])
    model.teacher.steps.fill_(epoch)
    warming = method == 'CSSCross' and epoch < model.warm_up

    expected = expected_targets(vectors, 'pseudo', method, warming)
    losses, given = run_step(vectors, method, model, warming)
    assert torch.equal(given['targets'].label, expected.label)
    ignored = (expected.label == 255) if method == 'CSSMix' else False  # ours gives them no confidence
    close(given['targets'].confidence, expected.confidence.masked_fill(torch.as_tensor(ignored), 0), 'q')
    assert_contrast_inputs(given, vectors, model.hard_threshold, model.contrast_temperature, model)

    (supervised,) = [value for key, value in losses.items() if key.startswith('sup.decode.loss')]
    close(supervised, vectors['loss_sup'], 'loss_sup')
    close(losses['unsup.loss_ce'], vectors['loss_unsup'], 'loss_unsup')
    close(model.weight().double(), vectors['contrast_weight'], 'contrast_weight')
    close(losses['unsup.loss_contrast'], vectors['loss_contrast'] * vectors['contrast_weight'], 'contrast')
    close(losses_in(losses), vectors['loss'], 'loss')
    losses_in(losses).backward()
    for part, output in outputs.items():
        close(output.grad, vectors[f'grad.{part}'], part)
    close(model.prototypes.value, vectors['prototypes_after'], 'prototypes_after')


def updated(vectors: dict, constants: dict, seen: torch.Tensor | None = None):
    """Representations (leaf), as pixels, their labels, and prototypes after the update."""
    label = flat_label(vectors['onehot'], vectors['mask'])
    kept = ClassPrototypes(*vectors['prototypes_before'].shape, momentum=1 - float(constants['alpha']))
    kept.value.copy_(vectors['prototypes_before'])
    kept.seen.copy_(kept.value.any(dim=1) if seen is None else seen)
    rep = vectors['rep'].clone().requires_grad_()
    pixels = rep.permute(0, 2, 3, 1).flatten(0, 2)
    kept.update(pixels.detach(), label)
    return rep, pixels, label, kept


def contrast(vectors: dict, constants: dict, seen: torch.Tensor | None = None):
    """The update and the loss on recorded draws: loss, its gradient, prototypes."""
    rep, pixels, label, kept = updated(vectors, constants, seen)
    classes = len(kept.seen)
    own = vectors['prob'].movedim(1, 0).flatten(1).gather(0, label.clamp(max=classes - 1)[None])[0]
    hard = label.masked_fill(own >= float(constants['strong_threshold']), 255)
    counts = class_counts(label, classes)
    temperature = float(constants['tau_c'])
    loss = contrastive_loss(
        pixels,
        kept.value,
        counts > 0,
        vectors['queries'].long(),
        vectors['negatives'].long(),
        temperature,
    )
    loss.backward()
    assert torch.equal(
        torch.stack([counts, class_counts(hard, classes)], 1), vectors['valid_and_hard'].long()
    )
    probability = negative_classes(kept.value, counts > 0, temperature)
    assert_probability(probability, vectors['negative_class_prob'])
    return loss, rep.grad, kept


def assert_contrast(vectors: dict, constants: dict, seen: torch.Tensor | None = None) -> None:
    loss, grad, kept = contrast(vectors, constants, seen)
    close(loss, vectors['loss'], 'loss')
    close(grad, vectors['grad_rep'], 'grad_rep')
    close(kept.value, vectors['prototypes_after'], 'prototypes_after')


def constants_of(everything: dict, name: str = 'contrast') -> dict:
    return {key: everything[f'{name}.{key}'] for key in ('alpha', 'tau_c', 'strong_threshold')}


@pytest.mark.parametrize('case', range(5))
def test_contrast(golden, case):
    everything = golden('css')
    assert_contrast(under(everything, f'contrast.{case}.'), constants_of(everything))


def test_contrast_with_other_constants(golden):
    everything = golden('css')
    assert_contrast(under(everything, 'contrast_b.'), constants_of(everything, 'contrast_b'))


def test_contrast_without_a_hard_pixel_keeps_its_graph(golden):
    """As released it has none, so that other processes would wait for its gradients for ever."""
    everything = golden('css')
    vectors = under(everything, 'as_released.contrast_all_easy.')
    assert not vectors['loss_has_graph']
    assert_contrast(vectors, constants_of(everything))  # has called backward


def test_a_prototype_that_sums_to_zero_is_not_forgotten(golden):
    everything = golden('css')
    vectors = under(everything, 'as_released.contrast_sum_zero_prototype.')
    before = vectors['prototypes_before']
    zero_sum = before.sum(1) == 0
    assert_contrast(vectors, constants_of(everything), seen=~zero_sum)  # the release takes it for a fresh one
    *_, kept = contrast(vectors, constants_of(everything))
    remembered = zero_sum & before.any(1)
    assert remembered.any()
    fresh = vectors['prototypes_after'][remembered]
    alpha = everything['contrast.alpha'].float()
    close(kept.value[remembered], alpha * before[remembered] + (1 - alpha) * fresh)


@pytest.mark.parametrize('name', ['two_ranks', 'as_released.two_ranks_local_classes'])
def test_two_processes(golden, name, monkeypatch):
    """The means are of both; as released, each process follows only classes that it has itself."""
    everything = golden('css')
    ranks = [
        under(everything, f'{name}.rank{rank}.')
        | dict(prototypes_before=everything[f'{name}.prototypes_before'])
        for rank in (0, 1)
    ]
    shared = []
    monkeypatch.setattr(prototypes, 'all_reduce', lambda tensor: shared.append(tensor.clone()))
    for vectors in ranks:
        updated(vectors, constants_of(everything))
    monkeypatch.setattr(prototypes, 'all_reduce', lambda tensor: tensor.copy_(shared[0] + shared[1]))
    found = []
    for vectors in ranks:
        loss, grad, kept = contrast(vectors, constants_of(everything))
        close(loss, vectors['loss'], 'loss')
        close(grad, vectors['grad_rep'], 'grad_rep')
        local = vectors['valid_and_hard'][:, 0] > 0
        close(kept.value[local], vectors['prototypes_after'][local], 'prototypes_after')
        if name == 'two_ranks':
            close(kept.value, vectors['prototypes_after'], 'prototypes_after')
        found.append(kept.value)
    assert torch.equal(*found)


def unsupervised(vectors: dict, everything: dict, average_over: str) -> tuple[torch.Tensor, torch.Tensor]:
    pred = vectors.get('pred', everything['unsup.pred']).clone().requires_grad_()
    classes = pred.shape[1]
    model, _ = recorded_step(
        {'prototypes_before': torch.zeros(classes, 2), 'teacher.pred': pred.detach()},
        'CSSBaseline',
        threshold=float(everything['steps.un_threshold']),
        average_over=average_over,
    )
    loss = model.unsupervised_loss(pred, to_255(vectors['label']), vectors['conf'])
    loss.backward()
    return loss.detach(), pred.grad


def test_unsupervised_loss(golden):
    everything = golden('css')
    vectors = under(everything, 'unsup.')
    for average_over in ('positive', 'labeled'):  # no pixel is fitted perfectly
        loss, grad = unsupervised(vectors, everything, average_over)
        close(loss, vectors['loss'])
        close(grad, vectors['grad'])


@pytest.mark.parametrize('case', ['weight_over_one', 'zero_losses', 'image_all_ignored'])
def test_unsupervised_loss_as_released(golden, case):
    everything = golden('css')
    vectors = under(everything, f'as_released.unsup_{case}.')
    loss, grad = unsupervised(vectors, everything, 'positive')
    close(loss, vectors['loss'])
    close(grad, vectors['grad'])
    over_labeled, _ = unsupervised(vectors, everything, 'labeled')
    assert (over_labeled < loss * (1 - 1e-6)) == (case == 'zero_losses')


def test_unsupervised_loss_of_nothing_is_zero_where_the_release_has_none(golden):
    everything = golden('css')
    vectors = under(everything, 'as_released.unsup_all_ignored.')
    assert vectors['loss'].isnan()
    loss, grad = unsupervised(vectors, everything, 'positive')
    assert loss == 0
    assert torch.equal(grad, vectors['grad'])


@pytest.mark.parametrize('case', range(5))
def test_ohem(golden, case):
    vectors = under(golden('css'), f'ohem.{case}.')
    logits = vectors['logits'].clone().requires_grad_()
    loss = OHEMCrossEntropyLoss(float(vectors['thresh']), int(vectors['min_kept']))
    value = loss(logits, to_255(vectors['label']))
    value.backward()
    close(value, vectors['loss'])
    close(logits.grad, vectors['grad'])
    assert torch.equal(logits.grad.abs().sum(1) > 0, vectors['kept'].bool())


def test_the_contrast_s_weight(golden):
    everything = golden('css')
    vectors = under(everything, 'ramp.')
    assert (vectors['begin_epoch'], vectors['min_value'], vectors['ramp_mult']) == (0, 0, -5)
    step = under(everything, 'mix.0.')
    model, _ = recorded_step(
        step,
        'CSSMix',
        contrast_weight=float(vectors['max_value']),
        contrast_ramp_down=int(vectors['max_epoch']),
    )
    found = []
    for epoch in vectors['epochs'].tolist():
        model.teacher.steps.fill_(epoch)
        found.append(model.weight())
    close(torch.stack(found), vectors['values'])


def test_the_learning_rate(golden):
    """MMEngine's schedule, over T + 1 steps, is the released one down to its floor."""
    expected = golden('css')['poly.lr_used_in_10_steps_from_0.5_floor_0.1']
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = PolyLR(optimizer, eta_min=0.0, power=0.9, begin=0, end=len(expected) + 1, by_epoch=False)
    found = []
    for _ in expected:
        found.append(max(optimizer.param_groups[0]['lr'], 0.1))
        optimizer.step()
        schedule.step()
    close(torch.tensor(found, dtype=torch.float64), expected)


@MMSEG_MODELS.register_module()
class NormedHead(BaseDecodeHead):
    """Two 1x1 convolutions behind one batch norm."""

    def __init__(self):
        super().__init__(
            in_channels=3,
            channels=3,
            num_classes=4,
            loss_decode=dict(type='CrossEntropyLoss'),
            dropout_ratio=0,
        )
        self.bn = nn.BatchNorm2d(3)
        self.representation_channels = 6
        self.representation = nn.Conv2d(3, 6, 1)

    def forward(self, features):
        return self.forward_with_representations(features)[0]

    def forward_with_representations(self, features):
        normed = self.bn(features[0])
        return self.conv_seg(normed), self.representation(normed)

    def vector(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.ordered())

    def ordered(self) -> list:
        parts = (self.bn, self.conv_seg, self.representation)
        return [parameter for part in parts for parameter in (part.weight, part.bias)]


@pytest.mark.parametrize('name', ['mix', 'baseline'])
def test_the_teacher_follows_and_normalizes_as_released(golden, name):
    vectors = under(golden('css'), f'ema.{name}.')
    segmentor = dict(
        type='EncoderDecoder',
        backbone=dict(type='RecordedFeatures'),
        decode_head=dict(type='NormedHead'),
        test_cfg=dict(mode='whole'),
    )
    model = build_model(dict(type=f'allspark_mmseg.{METHODS[name]}', segmentor=segmentor)).train()
    student, teacher = model.decode_head, model.teacher.module.decode_head
    with torch.no_grad():
        for head in (student, teacher):
            nn.utils.vector_to_parameters(vectors['teacher'][0], head.ordered())
    for step in range(len(vectors['student'])):
        model.teach(vectors['images_labeled'][step], vectors['images_unlabeled'][step])
        found = torch.stack([teacher.bn.running_mean, teacher.bn.running_var])
        with torch.no_grad():
            nn.utils.vector_to_parameters(vectors['student'][step], student.ordered())
        student.bn.running_mean.fill_(9)
        model.teacher.update_parameters(model.student)
        close(teacher.vector(), vectors['teacher'][step + 1], f'parameters {step}')
        close(found, vectors['teacher_bn_mean_var'][step], f'statistics {step}')
        assert torch.equal(found[0], teacher.bn.running_mean), 'the student reached them'


def test_a_long_average(golden):
    vectors = under(golden('css'), 'ema.long.')
    student = nn.Linear(1, 1, bias=False)
    teacher = Teacher(student, momentum=0.01, buffers='leave')
    found = []
    for value in vectors['student']:
        with torch.no_grad():
            student.weight.fill_(value)
        teacher.update_parameters(student)
        found.append(teacher.module.weight.detach().flatten().clone())
    close(torch.cat(found), vectors['teacher'])


def boxes_to_mask(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, H, W) bool of boxes (y, x, height, width)."""
    mask = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for one, (y, x, height, width) in zip(mask, boxes.tolist(), strict=True):
        one[y : y + height, x : x + width] = True
    return mask


def two_kinds(vectors: dict, kinds: tuple[str, ...] = ('cls', 'rep')) -> Targets:
    label = torch.stack([to_255(vectors[f'label_{kind}']) for kind in kinds], 1)
    return Targets(label, torch.stack([vectors[f'conf_{kind}'] for kind in kinds], 1))


def mixing_model(mix: str):
    vectors = {'prototypes_before': torch.zeros(5, 2), 'teacher.pred': torch.zeros(1, 5, 2, 2)}
    return recorded_step(vectors, 'CSSCross', mix=mix)[0]


@pytest.mark.parametrize('mix', ['cutmix', 'cutout', 'classmix'])
def test_mixing(golden, mix):
    everything = under(golden('css'), 'mixing.')
    expected = under(everything, f'{mix}.')
    kinds = ('cls', 'rep') if 'label_rep' in expected else ('cls',)
    targets = two_kinds(everything, kinds)
    size = tuple(targets.label.shape[2:])
    if mix == 'classmix':
        kept = expected['kept'].bool()  # of -1, then of the classes
        index = targets.label[:, -len(kinds)].masked_fill(targets.label[:, -len(kinds)] == 255, -1) + 1
        pasted = ~kept.gather(1, index.flatten(1)).view_as(index)
    else:
        pasted = boxes_to_mask(expected['boxes'], size)
    images, found = mixing_model(mix).paste(everything['image'], targets, pasted)
    assert torch.equal(images, expected['image'])
    assert torch.equal(found.label, two_kinds(expected | dict(conf_rep=expected['conf_rep']), kinds).label)
    assert torch.equal(found.confidence, two_kinds(expected, kinds).confidence)


def test_the_released_partner_is_of_the_first_process(golden):
    """Ours is of the same process, so the first one's images are as released."""
    vectors = under(golden('css'), 'as_released.mixing_two_ranks.')
    for rank in (0, 1):
        own, expected = (under(vectors, f'rank{rank}.{part}') for part in ('', 'cutmix.'))
        targets = two_kinds(own)
        pasted = boxes_to_mask(expected['boxes'], tuple(targets.label.shape[2:]))
        images, _ = mixing_model('cutmix').paste(own['image'], targets, pasted)
        assert torch.equal(images, expected['image']) == (rank == 0)
        partner = under(vectors, 'rank0.')['image'].roll(-1, 0)
        assert torch.equal(paste(own['image'], partner, pasted), expected['image'])


def test_the_strong_view(golden):
    """Labels and confidences as the release has them; images within the roundings to 8 bits of it."""
    vectors = under(golden('css'), 'as_released.strong_view.')
    image, targets = vectors['image'].float(), two_kinds(vectors)
    size = tuple(image.shape[2:])
    resized = torch.stack([(vectors['scale'] * side).long() for side in size], 1)
    rescale = Rescale(size, resized, vectors['crop_start'].long())
    images = rescale.image(image)
    targets = Targets(rescale.label(targets.label), rescale.confidence(targets.confidence))
    pasted = boxes_to_mask(vectors['boxes'], size)
    stages = [('rescaled', images, targets)]
    stages.append(('mixed', *mixing_model('cutmix').paste(images, targets, pasted)))
    flip = vectors['flip'].bool()
    _, images, targets = stages[-1]
    flips = [flipped(part, flip) for part in (images, targets.label, targets.confidence)]
    stages.append(('final', flips[0], Targets(*flips[1:])))
    for name, images, targets in stages:
        expected = under(vectors, f'{name}.')
        assert torch.equal(targets.label, two_kinds(expected).label), name
        difference = targets.confidence - two_kinds(expected).confidence
        assert difference.min() >= 0 and difference.max() < 1 / 255, name  # the release rounds down
        # PIL rounds rows and columns, half a gray level each; the release cuts off up to one in either pass
        error = images - expected['image'].float()
        cut_off = 2 if name == 'final' else 1
        assert error.min() > -1 and error.max() < 1 + cut_off, f'{name}: {error.min()}, {error.max()}'


def first_iteration_model(vectors: dict, as_released: bool, **arguments):
    model, _ = recorded_step(vectors, 'CSSMix', similarity_temperature=float(vectors['tau_s']), **arguments)
    # the release does not know which classes it has seen: to it a prototype of zeros is one as any
    model.prototypes.seen.copy_(model.prototypes.value.any(1) | as_released)
    return model


@pytest.mark.parametrize('case', ['mix_first_iteration', 'mix_unseen_class'])
def test_classes_without_prototype(golden, case):
    vectors = under(golden('css'), f'as_released.{case}.')
    model = first_iteration_model(vectors, True, count_ignored=True, hard_threshold=None)
    released = teacher_targets(model, vectors)
    assert torch.equal(released.label[:, 0], to_255(vectors['pseudo.label_mix']))
    close(released.confidence[:, 0], vectors['pseudo.conf_cls'])

    model = first_iteration_model(vectors, False, hard_threshold=None)
    seen = model.prototypes.seen
    found = teacher_targets(model, vectors)
    by_logit = to_255(vectors['pseudo.label_cls'])
    fallback = ~seen[by_logit]
    assert fallback.any()
    assert torch.equal(found.label[:, 0][fallback], by_logit[fallback])
    named = found.label[:, 0] != 255
    assert torch.equal(found.label[:, 0][named], by_logit[named])
    assert torch.equal(found.confidence[:, 0] > 0, named), 'no confidence where nothing is learned'


def test_the_first_iteration_as_released(golden):
    everything = golden('css')
    vectors = under(everything, 'as_released.mix_first_iteration.')
    steps = under(everything, 'steps.')
    arguments = step_arguments(vectors, 'CSSMix', steps) | dict(count_ignored=True)
    arguments.pop('similarity_temperature')
    model = first_iteration_model(vectors, True, **arguments)
    update = model.prototypes.update
    # a prototype of zeros is known as one to the release's update, if not to its labels
    model.prototypes.update = lambda *args: (model.prototypes.seen.fill_(False), update(*args))
    losses, given = run_step(vectors, 'CSSMix', model)
    assert_contrast_inputs(given, vectors, model.hard_threshold, model.contrast_temperature, model)
    close(losses['unsup.loss_ce'], vectors['loss_unsup'], 'loss_unsup')
    close(losses['unsup.loss_contrast'], vectors['loss_contrast'], 'loss_contrast')
    close(losses_in(losses), vectors['loss'])
    close(model.prototypes.value, vectors['prototypes_after'])


def test_cross_at_the_released_temperature(golden):
    """It teaches the classifier nothing, so it is refused."""
    everything = golden('css')
    vectors = under(everything, 'as_released.cross_tau_half.')
    arguments = step_arguments(vectors, 'CSSCross', under(everything, 'steps.')) | dict(warm_up=0)
    with pytest.raises(ValueError, match=r'threshold is 0\.97.*similarity_temperature=0\.5.*always be 0'):
        recorded_step(vectors, 'CSSCross', **arguments)
    model, _ = recorded_step(vectors, 'CSSCross', **arguments | dict(similarity_temperature=0.1))
    model.similarity_temperature = float(vectors['tau_s'])
    targets = teacher_targets(model, vectors)
    expected = expected_targets(vectors, 'pseudo', 'CSSCross', False)
    assert torch.equal(targets.label, expected.label)
    close(targets.confidence, expected.confidence)
    strong = expected_targets(vectors, 'strong', 'CSSCross', False)
    pred = vectors['student.pred_unlabeled'].clone().requires_grad_()
    loss = model.unsupervised_loss(
        model.resize_to_input(pred, strong.label.shape[2:]), strong.label[:, 0], strong.confidence[:, 0]
    )
    loss.backward()
    assert loss == vectors['loss_unsup'] == 0
    assert torch.equal(pred.grad, vectors['grad.pred_unlabeled'])
    similarity = model.probability(
        None, torch.cat([vectors['student.rep_labeled'], vectors['student.rep_unlabeled']])
    )
    close(similarity, vectors['indicator'])


def our_key(key: str, deep_stem: bool) -> str:
    """The release's key of a parameter or buffer -> that of an EncoderDecoder with ``RepresentationHead``."""
    renamed = [
        (r'resnet_conv1\.(?=\d)', 'backbone.stem.'),
        (r'resnet_bn1', 'backbone.stem.7' if deep_stem else 'backbone.bn1'),
        (r'resnet_', 'backbone.'),
        (r'ASPP\.convs\.4\.1', 'decode_head.image_pool.1.conv'),
        (r'ASPP\.convs\.4\.2', 'decode_head.image_pool.1.bn'),
        (r'ASPP\.convs\.(\d)\.0', r'decode_head.aspp_modules.\1.conv'),
        (r'ASPP\.convs\.(\d)\.1', r'decode_head.aspp_modules.\1.bn'),
        (r'ASPP\.project\.0', 'decode_head.bottleneck.conv'),
        (r'ASPP\.project\.1', 'decode_head.bottleneck.bn'),
        (r'project\.0', 'decode_head.c1_bottleneck.conv'),
        (r'project\.1', 'decode_head.c1_bottleneck.bn'),
        (r'classifier\.0', 'decode_head.fuse.0.conv'),
        (r'classifier\.1', 'decode_head.fuse.0.bn'),
        (r'classifier\.3', 'decode_head.conv_seg'),
        (r'representation\.0', 'decode_head.representation.0.conv'),
        (r'representation\.1', 'decode_head.representation.0.bn'),
        (r'representation\.3', 'decode_head.representation.1'),
    ]
    for pattern, replacement in renamed:
        if re.match(pattern, key):
            return re.sub(f'^{pattern}', replacement, key)
    raise KeyError(key)


@pytest.mark.parametrize('name', ['plain', 'deep_stem'])
@torch.no_grad()
def test_networks(golden, monkeypatch, name):
    vectors = under(golden('css'), f'network.{name}.')
    monkeypatch.syspath_prepend(str(GOLDEN))
    from rule_state import rule_state, rule_tensor

    deep_stem = name == 'deep_stem'
    backbone = dict(type='ResNet', depth=101, contract_dilation=True)
    if deep_stem:
        backbone = dict(type='ResNetV1c', depth=101, stem_channels=128)
    shapes = (json.loads(f'[{shape.decode()}]') for shape in vectors['shapes'])
    spec = {key.decode(): shape for key, shape in zip(vectors['keys'], shapes, strict=True)}
    segmentor = dict(
        type='EncoderDecoder',
        backbone=backbone | dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        decode_head=dict(
            type='allspark_mmseg.RepresentationHead',
            num_classes=vectors['logits_mean'].shape[1],
            norm_cfg=dict(type='BN'),
            align_corners=True,
        ),
        test_cfg=dict(mode='whole'),
    )
    with torch.device('meta'):
        model = build_model(segmentor).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == vectors['parameters']
    model.backbone.maxpool.ceil_mode = deep_stem  # as released; MMSegmentation's rounds down
    state = {our_key(key, deep_stem): torch.from_numpy(value) for key, value in rule_state(spec).items()}
    model.load_state_dict(state, strict=True, assign=True)
    size = tuple(vectors['image_size'].tolist())
    features = model.extract_feat(torch.from_numpy(rule_tensor('image', (1, 3, *size))))
    logits, representations = model.decode_head.forward_with_representations(features)
    assert torch.equal(logits, model.decode_head(features))
    stages = [vectors['stages'][i].decode() for i in range(3)]
    for stage, shape, (mean, std) in zip(
        stages, vectors['stage_shapes'].tolist(), vectors['stage_mean_std'].tolist(), strict=False
    ):
        feature = features[int(stage[-1]) - 1]
        assert list(feature.shape) == shape, stage
        assert feature.mean().item() == pytest.approx(mean, rel=1e-4), stage
        assert feature.std().item() == pytest.approx(std, rel=1e-4), stage

    def near(actual: torch.Tensor, expected: torch.Tensor) -> None:
        torch.testing.assert_close(actual, expected, rtol=0, atol=5e-6)

    near(logits[:, :, ::3, ::3], vectors['logits_every_3rd'])
    near(logits.mean((2, 3)), vectors['logits_mean'])
    near(logits.std((2, 3)), vectors['logits_std'])
    near(representations[:, :16, ::4, ::4], vectors['rep_first_16_every_4th'])
    near(representations.mean((2, 3)), vectors['rep_mean'])
    near(representations.std((2, 3)), vectors['rep_std'])
    assert torch.equal(logits.argmax(1), vectors['argmax'].long())
