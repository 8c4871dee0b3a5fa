"""The demo's report: numbers that agree with MMSegmentation's, and a picture that shows what it should."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / 'tools'))
sys.path.append(str(Path(__file__).parents[2] / 'tools' / 'dataset_converters'))
import contact_sheet as report
import make_demo_data as demo

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


def test_iou_agrees_with_iou_metric_on_ignored_and_absent_classes():
    metric = IoUMetric()
    metric.dataset_meta = {'classes': [*CLASSES, 'never']}
    confusion = np.zeros((4, 4), np.int64)
    for seed in range(3):
        truth, prediction = random_pair(seed)
        confusion += report.confusion_matrix(truth, prediction, 4)
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=torch.from_numpy(truth)[None]),
            pred_sem_seg=PixelData(data=torch.from_numpy(prediction)[None]),
        )
        metric.process({}, [sample.to_dict()])
    expected = metric.compute_metrics(metric.results)['mIoU']
    iou = report.class_iou(confusion)
    assert np.isnan(iou[3]) and round(float(np.nanmean(iou)), 2) == pytest.approx(expected)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match='truth holds labels from 0 to 7; expected 0 to 2'):
        report.confusion_matrix(np.array([[0, 7]]), np.array([[0, 0]]), 3)
    with pytest.raises(ValueError, match='one shape'):
        report.confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int), 3)


def test_sheet_shows_images_labels_and_legend():
    image = np.full((20, 30, 3), 77, np.uint8)
    truth, prediction = np.ones((20, 30), np.uint8), np.full((20, 30), 2)
    truth[:10] = 255
    sheet = report.contact_sheet([[image, truth, prediction]], ['image', 'truth', 'A'], CLASSES, PALETTE)
    pixels = np.array(sheet)
    top, step = 2 * report.LINE_HEIGHT + 2 * report.GAP, report.CELL_WIDTH + report.GAP
    height = round(report.CELL_WIDTH * 20 / 30)
    column = [
        pixels[top : top + height, report.GAP + index * step :][:, : report.CELL_WIDTH] for index in range(3)
    ]
    assert (column[0] == 77).all()
    assert (column[1][: height // 2 - 1] == report.IGNORE_COLOR).all() and (column[1][-1] == PALETTE[1]).all()
    assert (column[2] == PALETTE[2]).all()
    legend = pixels[top + height + report.GAP :].reshape(-1, 3).tolist()
    assert PALETTE[1] in legend and PALETTE[2] in legend and PALETTE[0] not in legend
    with pytest.raises(ValueError, match='expected 2, one a title'):
        report.contact_sheet([[image, truth, prediction]], ['image', 'truth'], CLASSES, PALETTE)


def test_legend_of_many_classes_stays_inside_the_sheet():
    classes = [f'a class with a long name {index}' for index in range(40)]
    labels = np.arange(40).reshape(5, 8)
    sheet = report.contact_sheet([[labels]], ['truth'], classes, np.full((40, 3), 9))
    font = report.ImageFont.load_default(report.TEXT_SIZE)
    places = report.legend_places(classes, font, 400)
    assert len(set(places)) == 40 and all(left + font.getlength(classes[0]) < 400 for left, _ in places)
    assert sheet.height > 40 * report.LINE_HEIGHT


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
def test_arguments_that_cannot_be_used_say_so(tmp_path, capsys, text, message):
    config = tmp_path / 'config.py'
    config.touch()
    with pytest.raises(SystemExit):
        report.main([str(tmp_path / 'out.png'), text.format(config=config)])
    assert message in capsys.readouterr().err


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config and two random checkpoints on six validation images."""
    pytest.importorskip('sklearn')
    root = tmp_path_factory.mktemp('report')
    demo.main([str(root / 'data'), '--labeled', '1', '--unlabeled', '0', '--val', '6'])
    palette = [[20 * index, 255 - 20 * index, 100] for index in range(11)]
    settings = {'root': str(root / 'data'), 'classes': list(demo.CLASSES), 'palette': palette}
    config = root / 'config.py'
    config.write_text(CONFIG.format(**settings, scale=(97, 97)))
    # inference on half the resolution: predictions must come back at the size of the truth
    (root / 'half.py').write_text(CONFIG.format(**settings, scale=(49, 49)))
    meta = {'dataset_meta': {'classes': demo.CLASSES, 'palette': palette}}
    for seed, name in enumerate(['a.pth', 'b.pth']):
        torch.manual_seed(seed)
        model = report.init_model(str(config), device='cpu')
        torch.nn.init.normal_(model.decode_head.conv_seg.weight)
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, root / name)
    return root


def test_report_of_two_models(trained, capsys):
    out = trained / 'reports' / 'sheet.png'
    report.main(
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
    assert sum(line[:1] == [name] for line in lines for name in demo.CLASSES) == 11
    width, height = Image.open(out).size
    assert width == report.GAP + 4 * (report.CELL_WIDTH + report.GAP)
    assert height > 4 * report.CELL_WIDTH


def test_evaluation_agrees_with_mmseg_test_loop(trained):
    config = report.Config.fromfile(trained / 'half.py')
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
    entry = report.Entry('A', trained / 'half.py', trained / 'a.pth')
    result = report.evaluate(entry, report.build_val_dataset(entry.config), [5, 0], 'cpu')
    assert round(result.mean_iou, 2) == pytest.approx(expected['mIoU'])
    assert [prediction.shape for prediction in result.predictions] == [(97, 97)] * 2


def test_models_of_different_data_are_not_compared(trained, tmp_path):
    other = tmp_path / 'other.py'
    text = (trained / 'config.py').read_text().replace("'zero'", "'nought'")
    other.write_text(text)
    entries = [report.Entry('A', trained / 'config.py', Path()), report.Entry('B', other, Path())]
    with pytest.raises(ValueError, match='validate on different images or classes'):
        report.check_same_data(entries, [report.build_val_dataset(entry.config) for entry in entries])


def test_config_without_val_dataloader_says_so(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmseg'")
    with pytest.raises(KeyError, match='no val_dataloader'):
        report.build_val_dataset(config)
