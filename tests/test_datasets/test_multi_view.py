"""The data contract from the dataset through MMEngine's own data loader to the preprocessor's output."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from allspark_mmseg.datasets import MultiView, MultiViewSegDataPreProcessor, TwoCrops
from allspark_mmseg.registry import MODELS, TRANSFORMS

PACK = {'type': 'PackSegInputs'}
FLIP = {'type': 'RandomFlip', 'prob': 1.0}
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
META = {'classes': ('void', 'thing'), 'palette': [[0, 0, 0], [255, 0, 0]]}


def results(height=4, width=6):
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    return {
        'img': image,
        'gt_seg_map': image[..., 0].copy(),
        'seg_fields': ['gt_seg_map'],
        'img_path': 'a.jpg',
    }


@pytest.fixture
def root(tmp_path):
    """Eight images of constant gray level i, of which the first three have masks of constant class 1."""
    for i in range(8):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((12 + i, 16, 3), i, np.uint8))
        cv2.imwrite(str(tmp_path / f'mask_{i}.png'), np.ones((12 + i, 16), np.uint8))
    (tmp_path / 'labeled.txt').write_text('\n'.join(f'{i}.png mask_{i}.png' for i in range(3)))
    (tmp_path / 'unlabeled.txt').write_text('\n'.join(f'{i}.png' for i in range(3, 8)))
    return tmp_path


def dataloader(root, workers):
    load, crop = {'type': 'LoadImageFromFile'}, {'type': 'RandomCrop', 'crop_size': (8, 8)}
    labeled = [
        load,
        {'type': 'LoadAnnotations'},
        crop,
        {'type': 'allspark_mmseg.MultiView', 'labeled': [PACK]},
    ]
    views = {'weak': [PACK], 'strong_1': [FLIP, PACK], 'strong_2': [PACK]}
    unlabeled = [load, crop, {'type': 'allspark_mmseg.MultiView', **views}]
    return {
        'batch_size': 3,
        'num_workers': workers,
        'persistent_workers': workers > 0,
        'sampler': {'type': 'allspark_mmseg.DualStreamSampler', 'labeled': 1, 'unlabeled': 2},
        'dataset': {
            'type': 'allspark_mmseg.SemiDataset',
            'data_root': str(root),
            'metainfo': META,
            'split': str(root),
            'labeled': {'pipeline': labeled},
            'unlabeled': {'pipeline': unlabeled},
        },
    }


@pytest.mark.parametrize('workers', [0, 2])
def test_from_files_to_batches(root, workers):
    with DefaultScope.overwrite_default_scope('mmseg'):
        loader = Runner.build_dataloader(dataloader(root, workers), seed=0)
    preprocess = MultiViewSegDataPreProcessor(size=(8, 8))
    seen = []
    assert len(loader) == 2
    for data in loader:
        assert [set(item.keys()) for item in data['inputs']] == [{'labeled'}] + [
            {'weak', 'strong_1', 'strong_2'}
        ] * 2
        batch = preprocess(data, training=True)
        inputs, samples = batch['inputs'], batch['data_samples']
        assert {view: tuple(tensor.shape) for view, tensor in inputs.items()} == {
            'labeled': (1, 3, 8, 8), 'weak': (2, 3, 8, 8), 'strong_1': (2, 3, 8, 8), 'strong_2': (2, 3, 8, 8)
        }  # fmt: skip
        assert (samples['labeled'][0].gt_sem_seg.data == 1).all()
        assert all('gt_sem_seg' not in sample for sample in samples['weak'])
        for view in ('weak', 'strong_1', 'strong_2'):
            # Order of the batch: each sample's file name is the gray level of its image.
            names = [int(sample.img_path.split('/')[-1][0]) for sample in samples[view]]
            assert names == inputs[view][:, 0, 0, 0].tolist()
        assert all(sample.flip for sample in samples['strong_1'])
        assert not any('flip' in sample for sample in samples['weak'])
        seen += inputs['weak'][:, 0, 0, 0].tolist()
    assert len(set(seen)) == 4 and set(seen) <= {3, 4, 5, 6, 7}


def test_each_view_works_on_its_own_copy():
    def paint(results):
        results['img'][:] = 0
        return results

    before = results()
    views = MultiView(weak=[paint, PACK], strong_1=[PACK])
    out = views(before)
    assert (before['img'] == results()['img']).all() and (
        before['gt_seg_map'] == results()['gt_seg_map']
    ).all()
    assert (out['inputs'].weak == 0).all()
    assert (out['inputs'].strong_1.numpy() == results()['img'].transpose(2, 0, 1)).all()
    assert out['inputs'].weak.dtype == torch.uint8


@pytest.mark.parametrize('scope', ['mmseg', 'mmengine'])
def test_steps_are_found_under_mmsegs_names_in_any_scope(scope):
    inner = {'type': 'RandomApply', 'prob': 1.0, 'transforms': [{'type': 'PhotoMetricDistortion'}]}
    jitter = {'type': 'allspark_mmseg.ColorJitter', 'brightness': 0.5}
    with DefaultScope.overwrite_default_scope(scope):
        views = TRANSFORMS.build({'type': 'allspark_mmseg.MultiView', 'weak': [inner, jitter, PACK]})
    assert views(results())['inputs'].weak.shape == (3, 4, 6)


@pytest.mark.parametrize('name', ['to', 'keys', '_weak', 'strong-1', '1'])
def test_names_that_cannot_be_fields(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be the name of a view.*identifier"):
        MultiView(**{name: [PACK]})


def test_no_view():
    with pytest.raises(ValueError, match='at least one view, found none'):
        MultiView()


@pytest.mark.parametrize(
    ('steps', 'found'),
    [
        ([], r"a dict of \['gt_seg_map', 'img', 'img_path', 'seg_fields'\]"),
        ([lambda results: None], 'NoneType'),
    ],
)
def test_a_view_that_is_not_packed(steps, found):
    with pytest.raises(
        TypeError, match=f"view 'strong_1' return {found}, expected inputs and data_samples of PackSegInputs"
    ):
        MultiView(weak=[PACK], strong_1=steps)(results())


def test_twice_runs_the_steps_anew_on_the_same_image():
    drawn = []

    def shift(results):
        drawn.append(results['img'].copy())
        results['img'] += len(drawn)
        return results

    before = results()['img']
    out = TwoCrops([shift, MultiView(weak=[PACK], strong_1=[FLIP, PACK])], prefix='mix_')(results())
    assert len(drawn) == 2 and all((img == before).all() for img in drawn)  # the second is not the first's
    assert (
        set(out['inputs'].keys())
        == set(out['data_samples'].keys())
        == {'weak', 'strong_1', 'mix_weak', 'mix_strong_1'}
    )
    for prefix, added in {'': 1, 'mix_': 2}.items():
        weak, strong = (out['inputs'].get(f'{prefix}{view}') for view in ('weak', 'strong_1'))
        assert torch.equal(weak, torch.from_numpy(before.transpose(2, 0, 1)) + added)
        assert torch.equal(strong, weak.flip(2))
        assert out['data_samples'].get(f'{prefix}strong_1').flip
        assert 'flip' not in out['data_samples'].get(f'{prefix}weak')


def test_twice_draws_crop_and_color_independently_of_one_decoded_file(root, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(root / 'noise.png'), pixels)
    decoded, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, 'imdecode', lambda *given: decoded.append(1) or decode(*given))
    jitter = {'type': 'allspark_mmseg.ColorJitter', 'brightness': 0.5}
    crop = {'type': 'allspark_mmseg.RandomScaleCropFlip', 'crop_size': (32, 32)}
    views = {'type': 'allspark_mmseg.MultiView', 'weak': [PACK], 'strong_1': [jitter, PACK]}
    steps = [
        {'type': 'LoadImageFromFile'},
        {'type': 'allspark_mmseg.LoadEmptyAnnotations'},
        {'type': 'allspark_mmseg.TwoCrops', 'prefix': 'mix_', 'steps': [crop, views]},
    ]
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        out = TRANSFORMS.build({'type': 'mmcv.Compose', 'transforms': steps})(
            {'img_path': str(root / 'noise.png'), 'seg_fields': []}
        )
    assert len(decoded) == 1
    inputs, samples = out['inputs'], out['data_samples']
    scales = [samples.get(view).scale_factor for view in ('weak', 'strong_1', 'mix_weak', 'mix_strong_1')]
    assert scales[0] == scales[1] != scales[2] == scales[3]  # common to the views of a run
    factors = [
        (inputs.get(f'{prefix}strong_1').sum() / inputs.get(f'{prefix}weak').sum()).item()
        for prefix in ('', 'mix_')
    ]
    assert abs(factors[0] - factors[1]) > 0.05
    # padding is marked where each run put it
    for prefix in ('', 'mix_'):
        padded = samples.get(f'{prefix}weak').gt_sem_seg.data[0] == 255
        assert (inputs.get(f'{prefix}weak')[:, padded] == 0).all()


@pytest.mark.parametrize('prefix', ['', '_', '1', 'mix-'])
def test_prefixes_that_cannot_begin_a_name(prefix):
    with pytest.raises(ValueError, match=f"prefix is '{prefix}', expected the beginning of .* identifier"):
        TwoCrops([MultiView(weak=[PACK])], prefix=prefix)


@pytest.mark.parametrize(
    ('steps', 'found'),
    [([PACK], r"a dict of \['data_samples', 'inputs'\]"), ([lambda results: None], 'NoneType')],
)
def test_twice_without_views(steps, found):
    with pytest.raises(
        TypeError, match=f'the steps return {found}, expected views.*allspark_mmseg.MultiView'
    ):
        TwoCrops(steps, prefix='mix_')(results())


def collated():
    labeled, unlabeled = MultiView(labeled=[PACK]), MultiView(weak=[PACK], strong_1=[FLIP, PACK])
    items = [labeled(results()), labeled(results(6, 4)), unlabeled(results(6, 6)), unlabeled(results(3, 5))]
    return pseudo_collate(items)


def test_every_view_is_what_the_parent_makes_of_it():
    arguments = {'mean': MEAN, 'std': STD, 'bgr_to_rgb': True, 'size': (8, 8), 'pad_val': 0.5}
    out = MODELS.build({'type': 'allspark_mmseg.MultiViewSegDataPreProcessor', **arguments})(
        collated(), training=True
    )
    parent = SegDataPreProcessor(**arguments)
    data = collated()
    assert list(out['inputs']) == list(out['data_samples']) == ['labeled', 'strong_1', 'weak']
    for view, items in {'labeled': (0, 1), 'strong_1': (2, 3), 'weak': (2, 3)}.items():
        lists = {key: [data[key][i].get(view) for i in items] for key in ('inputs', 'data_samples')}
        expected = parent(lists, training=True)
        assert torch.equal(out['inputs'][view], expected['inputs'])
        for sample, other in zip(out['data_samples'][view], expected['data_samples'], strict=True):
            assert torch.equal(sample.gt_sem_seg.data, other.gt_sem_seg.data)
            assert sample.metainfo == other.metainfo


def test_normalized_in_rgb_by_the_formula():
    out = MultiViewSegDataPreProcessor(mean=MEAN, std=STD, bgr_to_rgb=True, size=(4, 6))(
        pseudo_collate([MultiView(weak=[PACK])(results())]), training=True
    )
    rgb = results()['img'][..., ::-1].transpose(2, 0, 1).astype(np.float64)
    expected = (rgb - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert np.allclose(out['inputs']['weak'][0].numpy(), expected, atol=1e-5)


def test_moved_to_the_device():
    preprocess = MultiViewSegDataPreProcessor(size=(8, 8)).to('meta')
    out = preprocess(collated(), training=True)
    assert {tensor.device.type for tensor in out['inputs'].values()} == {'meta'}
    samples = [sample for view in out['data_samples'].values() for sample in view]
    assert {sample.gt_sem_seg.data.device.type for sample in samples} == {'meta'}


@pytest.mark.parametrize('training', [True, False])
def test_without_views_it_is_the_parent(training):
    arguments = {
        'mean': MEAN,
        'std': STD,
        'bgr_to_rgb': True,
        'size': (8, 8),
        'test_cfg': {'size_divisor': 4},
    }

    def data():
        image = torch.arange(72, dtype=torch.uint8).reshape(3, 4, 6)
        return {'inputs': [image], 'data_samples': [SegDataSample(metainfo={'img_path': 'a.jpg'})]}

    out = MultiViewSegDataPreProcessor(**arguments)(data(), training)
    expected = SegDataPreProcessor(**arguments)(data(), training)
    assert torch.equal(out['inputs'], expected['inputs'])
    assert out['data_samples'][0].metainfo == expected['data_samples'][0].metainfo


def test_views_and_plain_items_do_not_mix():
    data = {
        'inputs': [BaseDataElement(weak=torch.zeros(3, 4, 4)), torch.zeros(3, 4, 4)],
        'data_samples': None,
    }
    with pytest.raises(TypeError, match=r'1 of 2 items .*have views.*allspark_mmseg\.MultiView'):
        MultiViewSegDataPreProcessor(size=(4, 4))(data, training=True)


def test_any_number_of_bands_is_normalized():
    mean, std = [1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 4.0, 8.0]
    preprocessor = MultiViewSegDataPreProcessor(mean=mean, std=std, bgr_to_rgb=True)
    image = torch.arange(4 * 6, dtype=torch.float32).view(4, 2, 3)
    out = preprocessor(dict(inputs=[image], data_samples=None))['inputs'][0]
    torch.testing.assert_close(
        out, (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    )
    assert not preprocessor.state_dict()
