"""contact_sheet.py: the IoUs equal those of MMSegmentation; the picture shows images, labels and legend."""

from pathlib import Path

import contact_sheet as tool
import make_demo_data
import numpy as np
import pytest
import sheet
import torch
from demo_scenes import CLASSES as DEMO_CLASSES
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image

CLASSES = ['ground', 'road', 'tree']
PALETTE = [[10, 20, 30], [200, 0, 0], [0, 150, 0]]
CONFIG = """
default_scope = 'mmseg'
crop_size = (97, 97)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', size=crop_size, mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True),
    backbone=dict(
        type='MixVisionTransformer', embed_dims=8, num_layers=[1] * 4, num_heads=[1, 2, 4, 8]),
    decode_head=dict(
        type='SegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=16,
        num_classes=11, norm_cfg=dict(type='BN')),
    test_cfg=dict(mode='whole'))
val_dataloader = dict(batch_size=1, dataset=dict(
    type='BaseSegDataset', data_root={root!r}, img_suffix='.jpg', seg_map_suffix='.png',
    data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
    metainfo=dict(classes={classes!r}, palette={palette!r}),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale={scale!r}),
              dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
"""


def random_pair(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 2, 255], (20, 30)).astype(np.uint8)
    return truth, rng.integers(0, 3, (20, 30))


def sample_of(truth: np.ndarray, prediction: np.ndarray) -> SegDataSample:
    return SegDataSample(
        gt_sem_seg=PixelData(data=torch.from_numpy(truth)[None]),
        pred_sem_seg=PixelData(data=torch.from_numpy(prediction)[None]),
    )


def test_iou_ignores_255_and_is_nan_for_absent_classes():
    metric = IoUMetric()
    metric.dataset_meta = {'classes': [*CLASSES, 'never']}
    intersections, unions = np.zeros(4, int), np.zeros(4, int)
    for seed in range(3):
        truth, prediction = random_pair(seed)
        metric.process({}, [sample_of(truth, prediction).to_dict()])
        valid = truth != 255
        for k in range(4):
            unions[k] += (((truth == k) | (prediction == k)) & valid).sum()
            intersections[k] += ((truth == k) & (prediction == k)).sum()
    iou = tool.class_iou(metric)
    assert np.isnan(iou[3])
    np.testing.assert_allclose(iou[:3], 100 * intersections[:3] / unions[:3], rtol=1e-6)
    assert round(float(np.nanmean(iou)), 2) == pytest.approx(metric.compute_metrics(metric.results)['mIoU'])


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match='ground truth contains labels from 0 to 7; expected 0 to 2'):
        tool.check_labels(sample_of(np.array([[0, 7]]), np.array([[0, 0]])), 3)
    with pytest.raises(ValueError, match='equal shapes'):
        tool.check_labels(
            SegDataSample(
                gt_sem_seg=PixelData(data=torch.zeros(1, 2, 2)),
                pred_sem_seg=PixelData(data=torch.zeros(1, 2, 3)),
            ),
            3,
        )


def test_the_sheet_shows_images_labels_and_legend():
    image = np.full((20, 30, 3), 77, np.uint8)
    truth, prediction = np.ones((20, 30), np.uint8), np.full((20, 30), 2)
    truth[:10] = 255
    picture = sheet.contact_sheet([[image, truth, prediction]], ['image', 'truth', 'A'], CLASSES, PALETTE)
    pixels = np.array(picture)
    top, step = 2 * sheet.LINE_HEIGHT + 2 * sheet.GAP, sheet.CELL_WIDTH + sheet.GAP
    height = round(sheet.CELL_WIDTH * 20 / 30)
    column = [
        pixels[top : top + height, sheet.GAP + index * step :][:, : sheet.CELL_WIDTH] for index in range(3)
    ]
    assert (column[0] == 77).all()
    assert (column[1][: height // 2 - 1] == sheet.IGNORE_COLOR).all() and (column[1][-1] == PALETTE[1]).all()
    assert (column[2] == PALETTE[2]).all()
    legend = pixels[top + height + sheet.GAP :].reshape(-1, 3).tolist()
    assert PALETTE[1] in legend and PALETTE[2] in legend and PALETTE[0] not in legend
    with pytest.raises(ValueError, match='expected 2, one per title'):
        sheet.contact_sheet([[image, truth, prediction]], ['image', 'truth'], CLASSES, PALETTE)


def test_a_legend_of_many_classes_stays_inside_the_sheet():
    classes = [f'a class with a long name {index}' for index in range(40)]
    labels = np.arange(40).reshape(5, 8)
    picture = sheet.contact_sheet([[labels]], ['truth'], classes, np.full((40, 3), 9))
    font = sheet.ImageFont.load_default(sheet.TEXT_SIZE)
    places = sheet.legend_places(classes, font, 400)
    assert len(set(places)) == 40 and all(left + font.getlength(classes[0]) < 400 for left, _ in places)
    assert picture.height > 40 * sheet.LINE_HEIGHT


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('A', 'cannot read'),
        ('A={config}', 'cannot read'),
        ('A={config},missing.pth', 'A: no checkpoint file missing.pth'),
        ('A=missing.py,{config}', 'A: no config file missing.py'),
        ('A={config},{config},soon', "MINUTES is 'soon'"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, capsys, text, message):
    config = tmp_path / 'config.py'
    config.touch()
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / 'out.png'), text.format(config=config)])
    assert message in capsys.readouterr().err


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config and two random checkpoints on six validation images."""
    root = tmp_path_factory.mktemp('report')
    make_demo_data.main([str(root / 'data'), '--labeled', '1', '--unlabeled', '0', '--val', '6'])
    palette = [[20 * index, 255 - 20 * index, 100] for index in range(11)]
    settings = {'root': str(root / 'data'), 'classes': list(DEMO_CLASSES), 'palette': palette}
    config = root / 'config.py'
    config.write_text(CONFIG.format(**settings, scale=(97, 97)))
    # inference on half the resolution: predictions must come back at the size of the truth
    (root / 'half.py').write_text(CONFIG.format(**settings, scale=(49, 49)))
    meta = {'dataset_meta': {'classes': DEMO_CLASSES, 'palette': palette}}
    for seed, name in enumerate(['a.pth', 'b.pth']):
        torch.manual_seed(seed)
        model = tool.init_model(str(config), device='cpu')
        torch.nn.init.normal_(model.decode_head.conv_seg.weight)
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, root / name)
    return root


def test_two_models_give_a_table_and_a_picture(trained, capsys):
    out = trained / 'reports' / 'sheet.png'
    tool.main(
        [
            str(out),
            f'A={trained}/config.py,{trained}/a.pth',
            f'B={trained}/half.py,{trained}/b.pth,3.14',
            '--num',
            '4',
            '--device',
            'cpu',
        ]
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['IoU', '(%)', 'A', 'B'] in lines and ['minutes', '-', '3.1'] in lines
    assert sum(line[:1] == [name] for line in lines for name in DEMO_CLASSES) == 11
    width, height = Image.open(out).size
    assert width == sheet.GAP + 4 * (sheet.CELL_WIDTH + sheet.GAP)
    assert height > 4 * sheet.CELL_WIDTH


def test_the_evaluation_equals_the_validation_loop(trained):
    config = tool.Config.fromfile(trained / 'half.py')
    config.merge_from_dict(
        {
            'work_dir': str(trained / 'work'),
            'load_from': str(trained / 'a.pth'),
            'val_cfg': {'type': 'ValLoop'},
            'val_evaluator': {'type': 'IoUMetric'},
            'val_dataloader.sampler': {'type': 'DefaultSampler', 'shuffle': False},
        }
    )
    expected = Runner.from_cfg(config).val()
    entry = tool.Entry('A', trained / 'half.py', trained / 'a.pth')
    result = tool.evaluate(entry, tool.build_val_dataset(entry.config), [5, 0], 'cpu')
    assert round(result.mean_iou, 2) == pytest.approx(expected['mIoU'])
    assert [prediction.shape for prediction in result.predictions] == [(97, 97)] * 2


def test_models_with_different_data_are_refused(trained, tmp_path):
    other = tmp_path / 'other.py'
    text = (trained / 'config.py').read_text().replace("'zero'", "'nought'")
    other.write_text(text)
    entries = [tool.Entry('A', trained / 'config.py', Path()), tool.Entry('B', other, Path())]
    with pytest.raises(ValueError, match='validate on different images or classes'):
        tool.check_same_data(entries, [tool.build_val_dataset(entry.config) for entry in entries])


def test_a_config_without_val_dataloader_is_refused(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmseg'")
    with pytest.raises(KeyError, match='no val_dataloader'):
        tool.build_val_dataset(config)
