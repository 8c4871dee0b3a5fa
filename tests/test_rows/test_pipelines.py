"""The pipelines of the published rows, on small data with the real layout."""

import json

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, MODELS

from ..helpers.configs import STRONG_VIEWS, RunConfig, read_rows
from ..helpers.stand_ins import use_stand_in

ROWS = read_rows()


# rows whose pipelines differ: another split has the pipelines of its config
PIPELINES = {}
for _row in ROWS.values():
    _run = _row.peek()
    _key = json.dumps([_run.dataset, [stream.pipeline for stream in _run.streams.values()]], default=str)
    PIPELINES.setdefault(_key, _row.name)


SEMI = [name for name in PIPELINES.values() if not ROWS[name].peek().supervised]
SUPERVISED = [name for name in PIPELINES.values() if ROWS[name].peek().supervised]


@pytest.mark.parametrize('name', PIPELINES.values())
def test_validation_images_keep_their_size(name, stand_ins):
    run = ROWS[name].load()
    use_stand_in(run.cfg, stand_ins[run.dataset])
    validation = DATASETS.build(run.cfg.val_dataloader.dataset)
    assert len(validation) == 2
    item = validation[1]
    assert item['data_samples'].gt_sem_seg.shape == item['data_samples'].ori_shape
    if run.deit and run.dataset == 'voc':
        assert min(item['inputs'].shape[1:]) == 512
    else:
        assert item['inputs'].shape[1:] == item['data_samples'].ori_shape


@pytest.mark.parametrize('name', SUPERVISED)
def test_supervised_rows_read_labeled_images_only(name, stand_ins):
    run = ROWS[name].load()
    use_stand_in(run.cfg, stand_ins[run.dataset])
    dataset = DATASETS.build(run.cfg.train_dataloader.dataset)
    assert dataset.streams == {'labeled': range(2)}
    assert dataset[0]['inputs'].shape == (3, *run.cfg.crop_size)
    check_labels(dataset[0]['data_samples'], run)


@pytest.mark.parametrize('name', SEMI)
def test_views_of_a_batch(name, stand_ins):
    run = ROWS[name].load()
    scales, padded = set(), set()
    unlabeled = ['weak', *STRONG_VIEWS.get(run.method, ())]
    if run.cfg.model.get('mix_source') == 'same_image':
        unlabeled += [f'mix_{view}' for view in unlabeled]
    for inputs, views, preprocessor in draw_batches(run, stand_ins, 20 if run.deit else 8):
        assert {view: images.shape for view, images in inputs.items()} == dict.fromkeys(
            ('labeled', *unlabeled), (1, 3, *run.cfg.crop_size)
        )
        padded.add(check_padding(inputs, views, unlabeled, preprocessor, run))
        scales.add(views['labeled'].scale_factor)
        assert len({sample.img_path for view, sample in views.items() if view != 'labeled'}) == 1
        if run.method == 'css':
            weak = views['weak']
            assert weak.scale_factor == (1.0, 1.0) and not weak.flip, 'the model rescales and flips'
    check_labels(views['labeled'], run)
    if 'mix_weak' in views:
        assert views['weak'].scale_factor != views['mix_weak'].scale_factor
    # the release of CSS does not rescale labeled Cityscapes images
    assert (len(scales) == 1) == (run.method == 'css' and run.dataset == 'cityscapes')
    assert True in padded or (run.deit and run.dataset == 'cityscapes')


def draw_batches(run: RunConfig, stand_ins, count: int):
    """Batches of one labeled and one unlabeled image: inputs, {view: sample} and the preprocessor."""
    use_stand_in(run.cfg, stand_ins[run.dataset])
    dataset = DATASETS.build(run.cfg.train_dataloader.dataset)
    assert dataset.streams == {'labeled': range(2), 'unlabeled': range(2, 8)}
    preprocessor = MODELS.build(
        dict(run.segmentor.data_preprocessor, type='allspark_mmseg.MultiViewSegDataPreProcessor')
    )
    for i in range(count):
        batch = preprocessor(pseudo_collate([dataset[i % 2], dataset[2 + i % 6]]), training=True)
        yield batch['inputs'], {v: s[0] for v, s in batch['data_samples'].items()}, preprocessor


def check_labels(sample, run: RunConfig) -> None:
    labels = sample.gt_sem_seg.data.unique().tolist()
    assert len(labels) > 2
    assert run.deit or 255 in labels
    assert max(label for label in labels if label != 255) < len(run.cfg.metainfo.classes)


def check_padding(inputs, views, unlabeled, preprocessor, run) -> bool:
    """Check that padding is marked and looks as released; return whether there is any."""
    paddings = {view: views[view].gt_sem_seg.data[0] == 255 for view in unlabeled}
    for view, padding in paddings.items():
        assert set(views[view].gt_sem_seg.data.unique().tolist()) <= {0, 255}, 'no true mask is read'
        assert not padding.all()
        # views of one crop share the padding; the second crop has its own
        assert torch.equal(padding, paddings['mix_weak' if view.startswith('mix_') else 'weak'])
        if run.deit:  # padded after normalization
            assert (inputs[view][0][:, padding] == 0).all()
        elif view.endswith('weak'):  # black before normalization
            black = inputs[view][0, :, padding].T
            expected = (-preprocessor.mean / preprocessor.std).view(1, 3).expand_as(black)
            torch.testing.assert_close(black, expected)
    return bool(paddings['weak'].any())
