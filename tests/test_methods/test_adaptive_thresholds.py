"""Methods with adaptive thresholds: what a step logs, updates, and stores."""

import io

import pytest
import torch

from allspark_mmseg.methods import SemiSegmentor
from allspark_mmseg.thresholds import ConfidenceThreshold, build_threshold

from ..helpers.tiny_models import (
    CLASSES,
    batch,
    behind_bottleneck,
    build_model,
    losses_in,
    same,
    tiny_segmentor,
    train_steps,
)

VIEWS = tuple(prefix + view for prefix in ('', 'mix_') for view in ('weak', 'strong_1', 'strong_2'))
ADAPTIVE = dict(
    FreeMatch=dict(type='FreeMatch', momentum=0.5),
    SoftMatch=dict(type='SoftMatch', momentum=0.5),
    ClassBalanced=dict(type='ClassBalanced', momentum=0.5),
)
METHODS = ['AllSpark', 'FixMatch', 'MeanTeacher', 'SelfTraining', 'UniMatch', 'UniMatchV2']
EACH_KIND = pytest.mark.parametrize('kind', ADAPTIVE)


def build(method: str, threshold: object, **overrides) -> SemiSegmentor:
    torch.manual_seed(0)
    segmentor = tiny_segmentor()
    if method == 'AllSpark':
        segmentor = behind_bottleneck(segmentor)
    config = dict(type=f'allspark_mmseg.{method}', segmentor=segmentor, threshold=threshold, **overrides)
    return build_model(config).train()


def steps(count: int) -> list[tuple[dict, dict]]:
    torch.manual_seed(2)
    return [batch(views=VIEWS) for _ in range(count)]


@EACH_KIND
@pytest.mark.parametrize('method', ['AllSpark', 'FixMatch'])
def test_three_steps_move_the_statistics(method, kind):
    model = build(method, ADAPTIVE[kind], ignore_padding=True)
    seen = []
    model.threshold.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    logged, _ = train_steps(model, steps(3))
    expected = build_threshold('Test', ADAPTIVE[kind], CLASSES)
    assert len(seen) == 3
    for entries, (logits, image_mask) in zip(logged, seen, strict=True):
        assert all(value.isfinite().all() for value in entries.values())
        assert image_mask[:, 0].all() and not image_mask[:, -1].any()  # the lower half is padding
        expected(logits, image_mask)
        for name, value in expected.statistics().items():
            torch.testing.assert_close(entries[name], value)
    assert len({entries['pseudo.threshold'].item() for entries in logged}) == 3
    by_class = model.class_statistics()['pseudo.threshold']
    assert torch.equal(by_class, expected.class_thresholds)


@EACH_KIND
@pytest.mark.parametrize('method', METHODS)
def test_every_method_learns_from_its_pixels(method, kind):
    model = build(method, ADAPTIVE[kind])
    assert isinstance(model.threshold, ConfidenceThreshold) and model.adaptive_threshold is model.threshold
    inputs, data_samples = steps(1)[0]
    entries = model.loss(inputs, data_samples)
    assert 0 < entries['pseudo.confident'] < 1
    unsupervised = losses_in(entries, 'unsup.')
    assert unsupervised > 0
    unsupervised.backward()
    # another threshold, another loss
    other = build(method, 0.0).loss(inputs, data_samples)
    assert losses_in(other, 'unsup.') != unsupervised


@EACH_KIND
def test_weights_reach_the_loss(kind):
    """Of FixMatch without CutMix: the mean over all pixels except padding of weight times cross-entropy."""
    model = build('FixMatch', ADAPTIVE[kind], cutmix=dict(prob=0.0))
    inputs, data_samples = steps(1)[0]
    judged, logits = [], []
    model.threshold.register_forward_hook(lambda module, inputs, output: judged.append((*inputs, output)))
    model.decode_head.register_forward_hook(lambda module, inputs, output: logits.append(output))
    loss = model.loss(inputs, data_samples)['unsup.loss_strong_1']
    ((weak, image_mask, weight),) = judged
    strong = model.resize_to_input(logits[-1], image_mask.shape[1:])
    per_pixel = torch.nn.functional.cross_entropy(strong, weak.argmax(1), reduction='none') * weight
    torch.testing.assert_close(loss, 0.5 * per_pixel[image_mask].mean())


@EACH_KIND
@pytest.mark.parametrize('teacher', [None, {}])
def test_pasted_images_do_not_update_the_statistics(kind, teacher):
    model = build('FixMatch', ADAPTIVE[kind], mix_source='same_image', teacher=teacher)
    modes, updates = [], []
    model.threshold.register_forward_hook(lambda module, *_: modes.append(module.training))
    original = model.threshold.update
    model.threshold.update = lambda *arguments: (updates.append(arguments), original(*arguments))
    model.loss(*steps(1)[0])
    assert modes == [False, True] and len(updates) == 1
    assert model.threshold.training


@EACH_KIND
@pytest.mark.parametrize('method', ['AllSpark', 'FixMatch'])
def test_a_resumed_run_goes_on_with_the_statistics(method, kind):
    data = steps(4)
    model = build(method, ADAPTIVE[kind])
    train_steps(model, data[:2])
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = build(method, ADAPTIVE[kind])
    again.load_state_dict(torch.load(file, weights_only=True))
    assert same(dict(model.threshold.named_buffers()), dict(again.threshold.named_buffers()))
    (logged, state), (logged_again, state_again) = (train_steps(each, data[2:]) for each in (model, again))
    assert all(same(*pair) for pair in zip(logged, logged_again, strict=True))
    assert same(state, state_again)


@EACH_KIND
def test_the_module_belongs_to_the_method(kind):
    model = build('MeanTeacher', ADAPTIVE[kind])
    keys = [key for key in model.state_dict() if 'threshold' in key]
    assert len(keys) == 2 and all(key.startswith('threshold.') for key in keys)
    plain = build('MeanTeacher', 0.5)
    assert set(model.state_dict()) - set(plain.state_dict()) == set(keys)
    # a plain checkpoint loads as before
    missing, unexpected = model.load_state_dict(build_model(tiny_segmentor()).state_dict(), strict=False)
    assert not unexpected and set(keys) <= set(missing)


def test_prediction_and_pictures_do_not_update():
    model = build('FixMatch', ADAPTIVE['FreeMatch'])
    before = {name: value.clone() for name, value in model.threshold.state_dict().items()}
    images = torch.randn(1, 3, 65, 65)
    model.make_pseudo_labels(images)  # what PseudoLabelVisualizationHook calls
    with torch.no_grad():
        model.eval().predict(images)
    assert same(before, model.threshold.state_dict())


def test_a_number_stays_a_number_and_is_not_logged():
    model = build('FixMatch', 0.3)
    assert model.threshold == 0.3 and model.adaptive_threshold is None
    entries = model.loss(*steps(1)[0])
    assert not [name for name in entries if 'threshold' in name]
    assert list(model.class_statistics()) == ['pseudo.share']


@EACH_KIND
def test_mixed_precision(kind):
    model = build('FixMatch', ADAPTIVE[kind])
    with torch.autocast('cpu', torch.bfloat16):
        entries = model.loss(*steps(1)[0])
    losses_in(entries).backward()
    assert all(value.dtype == torch.float32 for value in model.threshold.buffers())
    assert all(value.isfinite().all() for value in entries.values())


@pytest.mark.parametrize('method', METHODS)
def test_bad_configs_name_the_method(method):
    with pytest.raises(ValueError, match=rf"{method}: threshold\.type is 'FlexMatch', expected one of"):
        build(method, dict(type='FlexMatch'))


def test_s4former_takes_only_numbers():
    with pytest.raises(ValueError, match=r'S4Former: threshold is .*FreeMatch.*, expected a confidence in'):
        build('S4Former', ADAPTIVE['FreeMatch'])
