"""The command ``test`` with test-time augmentation in a real Runner, and as MMSegmentation's tool does it."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS, TRANSFORMS
from PIL import Image

from allspark_mmseg.cli import test as command
from allspark_mmseg.prediction import ImageLoader, Predictor, find_tta, use_tta

from ..helpers.configs import CONFIGS
from ..test_engine.conftest import config, data_root, runner_of, with_validation  # noqa: F401

BASES = sorted((CONFIGS / '_base_' / 'datasets').glob('*.py'))


@pytest.fixture
def saved(with_validation, tmp_path):  # noqa: F811
    """A config of AllSpark with test data, and a checkpoint of its student alone."""
    cfg = with_validation
    cfg.tta_model = dict(type='SegTTAModel')
    cfg.tta_pipeline = find_tta(cfg)[1]
    torch.manual_seed(3)
    model = MODELS.build(copy.deepcopy(cfg.model))
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=model.student.state_dict(), meta={}), path)
    cfg.load_from = str(path)
    return cfg


def masks_of(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob('*.png'))]


def expected_masks(cfg: Config) -> list[np.ndarray]:
    """Masks of the labeled images from Predictor, with the views of the config."""
    model = MODELS.build(copy.deepcopy(cfg.model))
    model.load_state_dict(torch.load(cfg.load_from)['state_dict'], strict=False)
    model.cfg = cfg
    loader, root = ImageLoader(cfg, tta=True), Path(cfg.test_dataloader.dataset.data_root)
    images = [loader(root / f'{index}.png') for index in range(3)]
    predictor = Predictor(model.eval())
    return [predictor.predict([image])[0].labels for image in images]


@pytest.mark.parametrize('tool', ['allspark_mmseg', 'mmsegmentation'])
def test_augmentation_in_a_real_runner(saved, tmp_path, runner_of, tool):  # noqa: F811
    expected = expected_masks(saved)
    if tool == 'mmsegmentation':
        # what --tta does in its tools/test.py
        saved.test_dataloader.dataset.pipeline = saved.tta_pipeline
        saved.tta_model.module = saved.model
        saved.model = saved.tta_model
        saved.test_evaluator.update(output_dir=str(tmp_path / 'out'), keep_results=True)
        runner_of(saved).test()
    else:
        path = tmp_path / 'config.py'
        path.write_text('\n'.join(f'{key} = {value!r}' for key, value in saved.to_dict().items()))
        arguments = [str(path), saved.load_from, '--tta', '--out', str(tmp_path / 'out')]
        args = command.parse_args(arguments)
        runner_of(command.read_config(args)).test()
    found = masks_of(tmp_path / 'out')
    assert len(found) == 3
    for first, second in zip(found, expected, strict=True):
        assert np.array_equal(first, second)


def test_a_wrong_checkpoint_is_still_refused(saved, tmp_path, runner_of):  # noqa: F811
    torch.save(dict(state_dict={'fc.weight': torch.zeros(2, 2)}, meta={}), saved.load_from)
    use_tta(saved)
    with pytest.raises(ValueError, match=r'has no parameter of the AllSpark\. It has keys like'):
        runner_of(saved).test()


def test_a_checkpoint_of_other_classes_is_refused(saved, runner_of):  # noqa: F811
    state = torch.load(saved.load_from)['state_dict']
    state['decode_head.decoder.conv_seg.weight'] = torch.zeros(7, 8, 1, 1)
    torch.save(dict(state_dict=state, meta={}), saved.load_from)
    with pytest.raises(
        ValueError, match=r'weights\.pth is a checkpoint of another network .*: size mismatch'
    ):
        command._check_weights(runner_of(saved), saved.load_from)


def test_the_segmentor_keeps_its_own_data_preprocessor():
    model = dict(type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', mean=[1.0]))
    cfg = Config(
        dict(
            model=model, data_preprocessor=dict(mean=[2.0]), test_dataloader=dict(dataset=dict(pipeline=[{}]))
        )
    )
    use_tta(cfg)
    # the Runner gives the wrapper cfg.data_preprocessor unless it has one, and the wrapper passes it on
    assert cfg.model.data_preprocessor.mean == [1.0] and cfg.model.module.data_preprocessor.mean == [1.0]


@pytest.mark.parametrize('path', BASES, ids=[path.stem for path in BASES])
def test_the_configs_have_the_augmentation_of_their_test_pipeline(path):
    cfg = Config.fromfile(path)
    model, pipeline = find_tta(cfg)
    assert cfg.tta_model == model and cfg.tta_pipeline == pipeline
    defaults = Config({key: cfg[key] for key in ('test_dataloader', 'train_dataloader')})
    assert pipeline == find_tta(defaults)[1]
    TRANSFORMS.build(pipeline[-1])


def test_class_weights_of_the_config_do_not_matter(saved, tmp_path, runner_of):  # noqa: F811
    """Training replaces MMSegmentation's loss, which does not know 'balanced'."""
    head = saved.model.segmentor.decode_head
    head.get('decoder', head).loss_decode = dict(type='CrossEntropyLoss', class_weight='balanced')
    path = tmp_path / 'config.py'
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in saved.to_dict().items()))
    cfg = command.read_config(command.parse_args([str(path), saved.load_from]))
    assert 0 <= runner_of(cfg).test()['mIoU'] <= 100


@pytest.mark.parametrize('kind', ['IoUMetric', 'mmseg.IoUMetric'])
def test_out_with_a_list_of_evaluators(saved, tmp_path, kind):
    saved.test_evaluator = [dict(type='DumpResults', out_file_path='a.pkl'), dict(type=kind)]
    path = tmp_path / 'config.py'
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in saved.to_dict().items()))
    arguments = command.parse_args([str(path), saved.load_from, '--out', 'masks'])
    first, second = command.read_config(arguments).test_evaluator
    assert second.output_dir == 'masks' and second.keep_results and 'output_dir' not in first
    text = path.read_text().replace(f"dict(type='{kind}')", '').replace(f"{{'type': '{kind}'}}", '')
    path.write_text(text)
    with pytest.raises(ValueError, match='--out: test_evaluator has DumpResults, expected IoUMetric'):
        command.read_config(arguments)


@pytest.mark.parametrize(
    'step, mirrored',
    [
        (dict(type='RandomFlip', prob=0.5), True),
        (dict(type='mmseg.RandomFlip', prob=0.5), True),
        (dict(type='RandomFlip', prob=0.0), False),
        (dict(type='RandomFlip', prob=0.5, direction='vertical'), False),
        (dict(type='RandomFlip', prob=[0.0, 0.5], direction=['horizontal', 'vertical']), False),
        (dict(type='RandomFlip', prob=[0.3, 0.5], direction=['horizontal', 'vertical']), True),
        (dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(8, 8)), True),
        (dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(8, 8), flip_prob=0), False),
        (dict(type='PackSegInputs'), False),
    ],
)
def test_views_are_mirrored_if_the_training_mirrors(step, mirrored):
    steps = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    data = dict(test_dataloader=dict(dataset=dict(pipeline=steps)))
    cfg = Config(data | dict(train_dataloader=dict(dataset=dict(pipeline=[step]))))
    (augmentation,) = (each for each in find_tta(cfg)[1] if each['type'] == 'TestTimeAug')
    flips = [views for views in augmentation['transforms'] if views[0]['type'] == 'RandomFlip']
    assert bool(flips) == mirrored


def test_a_wrapped_data_set_gets_the_pipeline_where_it_has_one():
    steps = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    leaf = dict(type='BaseSegDataset', pipeline=steps)
    joined = dict(type='ConcatDataset', datasets=[leaf, dict(type='RepeatDataset', times=1, dataset=leaf)])
    cfg = Config(dict(model=dict(type='EncoderDecoder'), test_dataloader=dict(dataset=joined)))
    use_tta(cfg)
    found = cfg.test_dataloader.dataset
    assert 'pipeline' not in found and 'pipeline' not in found.datasets[1]
    for each in (found.datasets[0], found.datasets[1].dataset):
        assert each.pipeline[-1].type == 'TestTimeAug'
