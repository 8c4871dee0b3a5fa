"""class_weight in real runs: balanced weights, checkpoints, resuming, and MMSegmentation's own loss."""

import copy

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from allspark_mmseg.datasets.mask_checks import LabelCounts
from allspark_mmseg.engine import load_checkpoint_file
from allspark_mmseg.losses import balanced_weights

from .conftest import log_lines

LOSS = dict(type='allspark_mmseg.CrossEntropyLoss', class_weight='balanced')


def head_of(config) -> dict:
    return config.model.segmentor.decode_head.decoder


@pytest.fixture
def balanced(config):
    head_of(config).loss_decode = LOSS
    config.custom_hooks.append(dict(type='allspark_mmseg.ClassWeightHook'))
    config.train_cfg.max_epochs, config.log_level = 1, 'INFO'
    return config


def expected_weights(data_root, images=range(3)) -> list[float]:
    counts = LabelCounts()
    for i in images:
        counts.add(np.bincount(np.array(Image.open(data_root / f'{i}_mask.png')).ravel(), minlength=256))
    return balanced_weights(counts.pixels[:4], counts.around[:4])


def test_the_counts_are_those_of_the_masks():
    counts = LabelCounts()
    for mask in ([0, 0, 1, 255], [1, 1, 2, 2]):
        counts.add(np.bincount(mask, minlength=256))
    assert counts.pixels[[0, 1, 2, 255]].tolist() == [2, 3, 2, 1]
    assert counts.around[:3].tolist() == [3, 7, 4]
    assert counts.masks[:3].tolist() == [1, 2, 1]


@pytest.mark.parametrize('counted', [True, False])
def test_weights_of_the_labeled_masks(balanced, runner_of, data_root, counted):
    """Also without the counts of StartupCheckHook; they are in the log, the config and the checkpoint."""
    balanced.custom_hooks[0].masks = counted
    balanced.model.segmentor.auxiliary_head = dict(
        type='FCNHead', in_channels=40, in_index=2, channels=8, num_convs=1, num_classes=4, loss_decode=LOSS
    )
    runner = runner_of(balanced)
    runner.train()
    weights = expected_weights(data_root)
    student = runner.model.student
    assert student.decode_head.decoder.loss_decode.class_weight == weights
    assert student.auxiliary_head.loss_decode.class_weight == weights
    assert any(
        "class_weight='balanced' by median frequency balancing" in line and 'sky' in line
        for line in log_lines(runner)
    )
    checkpoint = load_checkpoint_file(f'{runner.work_dir}/epoch_1.pth')
    assert checkpoint['meta']['class_weight'] == {'balanced': weights}
    stored = Config.fromstring(checkpoint['meta']['cfg'], '.py').model.segmentor
    assert head_of(Config(dict(model=dict(segmentor=stored)))).loss_decode.class_weight == weights
    assert not any('class_weight' in key or 'loss' in key for key in checkpoint['state_dict'])


def test_two_losses_may_have_weights_of_two_kinds(balanced, runner_of, data_root):
    head = dict(type='FCNHead', in_channels=40, in_index=2, channels=8, num_convs=1, num_classes=4)
    head['loss_decode'] = dict(LOSS, class_weight='sqrt_balanced')
    balanced.model.segmentor.auxiliary_head = head
    runner = runner_of(balanced)
    runner.train()
    student = runner.model.student
    weights = student.decode_head.decoder.loss_decode.class_weight
    assert weights == expected_weights(data_root)
    roots = student.auxiliary_head.loss_decode.class_weight
    assert roots == pytest.approx([weight**0.5 for weight in weights], rel=1e-3)


@pytest.mark.parametrize('kind', ['balanced', 'sqrt_balanced'])
def test_a_resumed_run_keeps_its_weights(balanced, runner_of, data_root, tmp_path, kind):
    """Weights of another kind are computed."""
    first = copy.deepcopy(balanced)
    first.work_dir, first.experiment_name = str(tmp_path / 'first'), balanced.experiment_name + '_first'
    runner_of(first).train()
    balanced.train_cfg.max_epochs = 2
    balanced.train_dataloader.dataset.labeled.indices = [0, 1]  # other labels since then
    head_of(balanced).loss_decode = dict(LOSS, class_weight=kind)
    balanced.load_from, balanced.resume = str(tmp_path / 'first' / 'epoch_1.pth'), True
    runner = runner_of(balanced)
    runner.train()
    weights = runner.model.student.decode_head.decoder.loss_decode.class_weight
    before, now = expected_weights(data_root), expected_weights(data_root, range(2))
    assert before != now
    expected = before if kind == 'balanced' else [weight**0.5 for weight in now]
    assert weights == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        (dict(type='CrossEntropyLoss', avg_non_ignore=True, class_weight=[1.0, 2.0, 1.0, 1.0]),
         r"loss_decode of the AllMLPHead: MMSeg.*IndexError.*type='allspark_mmseg\.CrossEntropyLoss'"),
        (dict(type='allspark_mmseg.CrossEntropyLoss', class_weight=[1.0, 2.0]),
         r'class_weight has 2 numbers, expected num_classes=4'),
    ],
)  # fmt: skip
def test_weights_that_would_fail_later_are_refused(config, runner_of, loss, message):
    head_of(config).loss_decode = loss
    with pytest.raises(ValueError, match=message):
        runner_of(config).train()


def test_weights_of_the_config_are_used(config, runner_of):
    head_of(config).loss_decode = dict(LOSS, class_weight=[1.0, 2.0, 1.0, 1.0])
    config.train_cfg.max_epochs = 1
    runner = runner_of(config)
    runner.train()
    assert runner.iter == 2
