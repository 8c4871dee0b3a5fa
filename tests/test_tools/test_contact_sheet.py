"""contact_sheet.py: the IoUs equal those of MMSegmentation; the picture shows images, labels and legend."""

from pathlib import Path

import contact_sheet as tool
import make_demo_data
import numpy as np
import pytest
import sheet
import sheet_models
import torch
from demo_scenes import CLASSES as DEMO_CLASSES
from mmengine.config import Config
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
    iou = sheet_models.class_iou(metric)
    assert np.isnan(iou[3])
    np.testing.assert_allclose(iou[:3], 100 * intersections[:3] / unions[:3], rtol=1e-6)
    assert round(float(np.nanmean(iou)), 2) == pytest.approx(metric.compute_metrics(metric.results)['mIoU'])


def test_the_iou_of_an_image_is_the_mean_over_the_classes_in_its_truth():
    metric = IoUMetric()
    metric.dataset_meta = {'classes': CLASSES}
    truth = np.array([[0, 0, 0, 0, 1, 1, 255, 255]], np.uint8)
    # class 2 is predicted, but does not occur: it is no class of the mean
    prediction = np.array([[0, 0, 1, 0, 1, 2, 2, 0]])
    for labels in (truth, np.full_like(truth, 255)):
        metric.process({}, [sample_of(labels, prediction).to_dict()])
    first, ignored = sheet_models.image_iou(metric)
    assert first == pytest.approx(100 * (3 / 4 + 1 / 3) / 2)
    assert np.isnan(ignored)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match='ground truth contains labels from 0 to 7; expected 0 to 2'):
        sheet_models.check_labels(sample_of(np.array([[0, 7]]), np.array([[0, 0]])), 3)
    with pytest.raises(ValueError, match='equal shapes'):
        sheet_models.check_labels(
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


def test_the_difference_marks_the_pixels_that_one_model_alone_has_right():
    image = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    truth = np.array([[0, 1], [2, 255]], np.uint8)
    first, last = np.array([[0, 0], [2, 0]], np.uint8), np.array([[1, 1], [2, 1]], np.uint8)
    picture = sheet.difference_picture(image, truth, first, last)
    assert picture[0].tolist() == [list(sheet.ONLY_FIRST), list(sheet.ONLY_LAST)]
    (red, green, blue), ignored = picture[1].tolist()
    assert red == green == blue >= 160 and ignored == [red] * 3
    # the validation pipeline can change the size of the truth, but not that of the file
    large = sheet.difference_picture(np.zeros((6, 4, 3), np.uint8), truth, first, last)
    assert large.shape == (2, 2, 3)


def test_captions_marks_and_note_are_below_the_cells():
    cell, note = np.zeros((10, 10), np.uint8), 'some words ' * 10
    plain = sheet.contact_sheet([[cell]], ['truth'], CLASSES, PALETTE)
    texts = dict(captions=[['caption']], marks=[('mark', sheet.ONLY_LAST)], note=note)
    full = sheet.contact_sheet([[cell]], ['truth'], CLASSES, PALETTE, **texts)
    font = sheet.ImageFont.load_default(sheet.TEXT_SIZE)
    lines = sheet.wrap_text(note, font, sheet.CELL_WIDTH)
    assert len(lines) > 3 and all(font.getlength(line) <= sheet.CELL_WIDTH for line in lines)
    assert ' '.join(lines) == note.strip()
    assert full.width == plain.width
    # lines of the caption, of the mark and of the note, with gaps
    assert full.height - plain.height == (2 + len(lines)) * sheet.LINE_HEIGHT + 3 * sheet.GAP
    pixels = np.array(full)
    below = 2 * sheet.LINE_HEIGHT + 2 * sheet.GAP + sheet.CELL_WIDTH
    assert (pixels[below : below + sheet.LINE_HEIGHT] == 0).any()
    assert (pixels[below:] == sheet.ONLY_LAST).all(2).any()


def test_a_long_caption_widens_the_columns():
    cell, caption = np.zeros((10, 10), np.uint8), 'a caption that is longer than a cell is wide'
    picture = sheet.contact_sheet([[cell]], ['truth'], CLASSES, PALETTE, captions=[[caption]])
    assert picture.width > sheet.ImageFont.load_default(sheet.TEXT_SIZE).getlength(caption) > sheet.CELL_WIDTH


def test_a_legend_of_many_classes_stays_inside_the_sheet():
    classes = [f'a class with a long name {index}' for index in range(40)]
    labels = np.arange(40).reshape(5, 8)
    picture = sheet.contact_sheet([[labels]], ['truth'], classes, np.full((40, 3), 9))
    font = sheet.ImageFont.load_default(sheet.TEXT_SIZE)
    places = sheet.legend_places(classes, font, 400)
    assert len(set(places)) == 40 and all(left + font.getlength(classes[0]) < 400 for left, _ in places)
    assert picture.height > 40 * sheet.LINE_HEIGHT


def test_images_of_the_gain_are_evenly_spaced_ranks_from_best_to_worst():
    gain = np.random.default_rng(0).permutation(np.arange(-40.0, 61.0))
    gain[[3, 50]] = np.nan
    selection = tool.pick_by_gain(gain, 7)
    shown = gain[selection.indices]
    assert shown[0] == np.nanmax(gain) and shown[-1] == np.nanmin(gain) and shown[3] == np.nanmedian(gain)
    assert (np.diff(shown) < 0).all()
    ranks = [1, 17, 34, 50, 66, 83, 99]
    assert selection.captions == [f'rank {rank} of 99' for rank in ranks]
    assert 'at the percentiles 100, 84, 66, 50, 34, 16, 0 of the gain in mIoU, best first' in selection.rule


def test_few_images_are_shown_once_and_images_without_gain_never():
    assert tool.pick_by_gain(np.array([1.0, np.nan, 3.0]), 7).indices == [2, 0]
    assert 'percentiles 100 of' in tool.pick_by_gain(np.array([1.0]), 7).rule
    assert tool.pick_even(3, 7).indices == [0, 1, 2]
    with pytest.raises(ValueError, match='no validation image has a labeled pixel'):
        tool.pick_by_gain(np.array([np.nan]), 7)


def result_of(name: str, image_iou: list[float]) -> sheet_models.Result:
    return sheet_models.Result(sheet_models.Entry(name, Path(), Path()), np.ones(3), np.array(image_iou))


def test_the_gain_is_the_last_model_minus_the_first():
    ious = {'A': [10.0, 20, 30, 40], 'B': [99.0] * 4, 'C': [15.0, 25, 28, 40]}
    results = [result_of(name, values) for name, values in ious.items()]
    np.testing.assert_array_equal(tool.image_gain(results), [5, 5, -2, 0])
    assert 'with C minus mIoU with A' in tool.describe_gain(results)
    assert 'positive in 2 and negative in 1 of 4 images' in tool.describe_gain(results)
    captions = tool.sheet_captions(tool.Selection([2, 0], ['rank 4', 'rank 1'], ''), results)
    assert captions[0] == ['rank 4', '', 'mIoU 30.0 %', 'mIoU 99.0 %', 'mIoU 28.0 %', 'gain -2.0']
    assert captions[1] == ['rank 1', '', 'mIoU 10.0 %', 'mIoU 99.0 %', 'mIoU 15.0 %', 'gain +5.0']
    (single,) = tool.sheet_captions(tool.Selection([1], ['image 2'], ''), results[:1])
    assert single == ['image 2', '', 'mIoU 20.0 %']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('A', 'cannot read'),
        ('A={config}', 'cannot read'),
        ('A={config},missing.pth', 'A: no checkpoint file missing.pth'),
        ('A=missing.py,{config}', 'A: no config file missing.py'),
        ('A={config},{config},soon', "MINUTES is 'soon'"),
        ('A={config},{config} --num 0', '--num is 0; expected 1 or more'),
        ('A={config},{config} --pick gain --num 5', '--num is 5; expected 6 or more with --pick gain'),
        ('A={config},{config} --pick gain', 'expected two or more'),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, capsys, text, message):
    config = tmp_path / 'config.py'
    config.touch()
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / 'out.png'), *text.format(config=config).split()])
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
        model = sheet_models.init_model(str(config), device='cpu')
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
    printed = capsys.readouterr().out
    assert 'Rows: validation images, evenly spaced in the list of 6.' in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ['IoU', '(%)', 'A', 'B'] in lines and ['minutes', '-', '3.1'] in lines
    assert sum(line[:1] == [name] for line in lines for name in DEMO_CLASSES) == 11
    width, height = Image.open(out).size
    assert width == sheet.GAP + 5 * (sheet.CELL_WIDTH + sheet.GAP)
    assert height > 4 * sheet.CELL_WIDTH


def mean_iou(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean IoU over the classes of the truth, in percent."""
    pairs = [(truth == label, prediction == label) for label in np.unique(truth)]
    return 100 * float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))


def test_the_sheet_by_gain_shows_the_images_in_the_order_of_the_gain(trained, capsys, monkeypatch):
    drawn = {}

    def record(rows, titles, classes, palette, **texts):
        drawn.update(texts, rows=rows)
        return sheet.contact_sheet(rows, titles, classes, palette, **texts)

    monkeypatch.setattr(tool, 'contact_sheet', record)
    models = [f'{name.upper()}={trained}/config.py,{trained}/{name}.pth' for name in 'ab']
    tool.main([str(trained / 'gain.png'), *models, '--pick', 'gain', '--device', 'cpu'])
    gains = [float(captions[-1].removeprefix('gain ')) for captions in drawn['captions']]
    assert gains == sorted(gains, reverse=True) and len(gains) == 6 and gains[0] > gains[-1]
    rule = 'at the percentiles 100, 80, 60, 40, 20, 0 of the gain in mIoU, best first'
    assert rule in drawn['note'] and rule in capsys.readouterr().out
    assert [name for name, _ in drawn['marks']] == ['only A is right', 'only B is right']
    for (_, truth, first, last, _), captions in zip(drawn['rows'], drawn['captions'], strict=True):
        assert first.dtype == last.dtype == np.uint8
        expected = [f'mIoU {mean_iou(truth, labels):.1f} %' for labels in (first, last)]
        assert captions[2:4] == expected
    assert Image.open(trained / 'gain.png').height > 6 * sheet.CELL_WIDTH


def test_the_evaluation_equals_the_validation_loop(trained):
    config = Config.fromfile(trained / 'half.py')
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
    entry = sheet_models.Entry('A', trained / 'half.py', trained / 'a.pth')
    dataset = sheet_models.build_val_dataset(entry.config)
    result = sheet_models.evaluate(entry, dataset, 'cpu')
    assert round(result.mean_iou, 2) == pytest.approx(expected['mIoU']) and result.image_iou.shape == (6,)
    predictions = sheet_models.label_maps(entry, dataset, [5, 0], 'cpu')
    assert [(each.shape, each.dtype) for each in predictions] == [((97, 97), np.uint8)] * 2


def test_models_with_different_data_are_refused(trained, tmp_path):
    other = tmp_path / 'other.py'
    text = (trained / 'config.py').read_text().replace("'zero'", "'nought'")
    other.write_text(text)
    entries = [
        sheet_models.Entry(name, path, Path()) for name, path in (('A', trained / 'config.py'), ('B', other))
    ]
    datasets = [sheet_models.build_val_dataset(entry.config) for entry in entries]
    with pytest.raises(ValueError, match='validate on different images or classes'):
        sheet_models.check_same_data(entries, datasets)


def test_a_config_without_val_dataloader_is_refused(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmseg'")
    with pytest.raises(KeyError, match='no val_dataloader'):
        sheet_models.build_val_dataset(config)
