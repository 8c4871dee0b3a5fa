"""Ways to test as released: windows (UniMatch, AllSpark, UniMatch V2), multiples of a size (UniMatch V2)."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode

from allspark_mmseg.segmentors.extended_encoder_decoder import (
    clipped_windows,
    nearest_multiple,
    shifted_windows,
)

from ..helpers.tiny_models import (
    CLASSES,
    CROP,
    build_model,
    losses_in,
    samples,
    tiny_head,
    tiny_resnet,
    tiny_segmentor,
)


def clipped(crop=(32, 48), stride=(20, 32), *, base=tiny_resnet, **overrides) -> dict:
    """A ResNet by default, which takes windows of any size."""
    test_cfg = dict(mode='slide_probs_clipped', crop_size=crop, stride=stride)
    return base(type='allspark_mmseg.ExtendedEncoderDecoder', test_cfg=test_cfg) | overrides


def behind_bottleneck(segmentor: dict) -> dict:
    bottleneck = dict(in_channels=64, channels=16, crop_size=CROP)
    head = dict(type='allspark_mmseg.AllSparkHead', bottleneck=bottleneck, decoder=segmentor['decode_head'])
    return segmentor | dict(decode_head=head)


def plain_twin(model, segmentor: dict):
    """MMSegmentation's own segmentor of the same weights, testing whole images."""
    twin = build_model(segmentor | dict(type='EncoderDecoder', test_cfg=dict(mode='whole')))
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def naive(twin, image: torch.Tensor, crop: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    """Averaged probabilities (K, H, W): each window predicted as an image of its own."""
    height, width = image.shape[2:]
    total = torch.zeros(CLASSES, height, width, dtype=torch.float64)
    count = torch.zeros(height, width, dtype=torch.float64)
    top = 0
    while top < height:
        left = 0
        while left < width:
            bottom, right = min(top + crop[0], height), min(left + crop[1], width)
            (result,) = twin.predict(image[:, :, top:bottom, left:right])
            total[:, top:bottom, left:right] += result.seg_logits.data.double().softmax(0)
            count[top:bottom, left:right] += 1
            left += stride[1]
        top += stride[0]
    return total / count


def test_windows_of_cityscapes():
    rows = [(window.start, window.stop) for window in clipped_windows(1024, 801, 534)]
    columns = [(window.start, window.stop) for window in clipped_windows(2048, 801, 534)]
    assert rows == [(0, 801), (534, 1024)]
    assert columns == [(0, 801), (534, 1335), (1068, 1869), (1602, 2048)]


@pytest.mark.parametrize(
    'size, windows',
    [
        (1, [(0, 1)]),
        (20, [(0, 20)]),
        (21, [(0, 21), (20, 21)]),  # not larger than the crop, but than the stride
        (40, [(0, 32), (20, 40)]),  # the stride divides it: no empty window at the end
        (41, [(0, 32), (20, 41), (40, 41)]),
        (52, [(0, 32), (20, 52), (40, 52)]),
    ],
)
def test_windows_start_while_inside(size, windows):
    assert [(window.start, window.stop) for window in clipped_windows(size, 32, 20)] == windows


@torch.no_grad()
def test_windows_that_the_network_is_given():
    model = build_model(clipped((801, 801), (534, 534))).eval()
    seen = []

    def stub(window, metas):
        seen.append(tuple(window.shape[2:]))
        assert all(meta['img_shape'] == window.shape[2:] for meta in metas)
        return window.new_zeros(1, CLASSES, *window.shape[2:])

    model.encode_decode = stub
    metas = [dict(img_shape=(1024, 2048), ori_shape=(1024, 2048))]
    logits = model.inference(torch.zeros(1, 3, 1024, 2048), metas)
    assert seen == [(801, 801)] * 3 + [(801, 446)] + [(490, 801)] * 3 + [(490, 446)]
    assert logits.shape == (1, CLASSES, 1024, 2048)
    torch.testing.assert_close(logits.exp(), torch.full_like(logits, 1 / CLASSES))
    assert metas == [dict(img_shape=(1024, 2048), ori_shape=(1024, 2048))]


@torch.no_grad()
@pytest.mark.parametrize('wrap', [lambda segmentor: segmentor, behind_bottleneck])
@pytest.mark.parametrize(
    'size',
    [
        (61, 97),
        (60, 96),  # the stride divides both
        (41, 65),  # windows of a single pixel at the border
        (32, 48),  # one crop, of which the second window is a part
        (32, 130),
    ],
)
def test_equals_naive_loops(wrap, size):
    segmentor = wrap(clipped())
    model = build_model(segmentor).eval()
    twin = plain_twin(model, segmentor)
    images = torch.randn(2, 3, *size)
    for image, result in zip(images, model.predict(images), strict=True):
        expected = naive(twin, image[None], (32, 48), (20, 32))
        probability = result.seg_logits.data.softmax(0)
        torch.testing.assert_close(probability.double(), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(result.seg_logits.data.double(), expected.log(), rtol=1e-5, atol=1e-5)
        sure = expected.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-6
        assert sure.float().mean() > 0.99
        assert torch.equal(result.pred_sem_seg.data[0][sure], expected.argmax(0)[sure])


@torch.no_grad()
@pytest.mark.parametrize('size', [(20, 32), (17, 9)])
def test_an_image_within_the_stride_is_one_window(size):
    segmentor = clipped()
    model = build_model(segmentor).eval()
    images = torch.randn(2, 3, *size)
    for whole, result in zip(
        plain_twin(model, segmentor).predict(images), model.predict(images), strict=True
    ):
        expected = whole.seg_logits.data.log_softmax(0)
        torch.testing.assert_close(result.seg_logits.data, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(result.pred_sem_seg.data, whole.pred_sem_seg.data)


@torch.no_grad()
@pytest.mark.parametrize('method', ['allspark_mmseg.SelfTraining', 'allspark_mmseg.AllSpark'])
def test_as_the_student_of_a_method(method):
    segmentor = behind_bottleneck(clipped((48, 64), (36, 40), base=tiny_segmentor))
    model = build_model(dict(type=method, segmentor=segmentor)).eval()
    assert model.student.test_cfg.mode == 'slide_probs_clipped'
    image = torch.randn(1, 3, 70, 110)
    (result,) = model.predict(image)
    expected = naive(plain_twin(model.student, segmentor), image, (48, 64), (36, 40))
    torch.testing.assert_close(result.seg_logits.data.softmax(0).double(), expected, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize('original', [(50, 70), (75, 105)])
def test_results_have_the_size_of_the_original_image(original):
    """A raw image of 50 x 70 pixels through ``test_step``, as read or made smaller by the pipeline."""
    model = build_model(clipped()).eval()
    raw = torch.randint(256, (3, 50, 70), dtype=torch.uint8)
    sample = SegDataSample(
        metainfo=dict(img_shape=(50, 70), ori_shape=original),
        gt_sem_seg=PixelData(data=torch.zeros(1, *original, dtype=torch.uint8)),
    )
    (result,) = model.test_step(dict(inputs=[raw], data_samples=[sample]))
    assert result.seg_logits.data.shape == (CLASSES, *original)
    assert result.pred_sem_seg.data.shape == (1, *original)
    inputs = model.data_preprocessor(dict(inputs=[raw], data_samples=[sample]))['inputs']
    expected = model.predict(inputs)[0].seg_logits.data
    if original != (50, 70):
        expected = torch.nn.functional.interpolate(expected[None], original, mode='bilinear')[0]
    torch.testing.assert_close(result.seg_logits.data, expected)


@torch.no_grad()
def test_a_vanishing_probability_stays_finite():
    model = build_model(clipped()).eval()
    certain = torch.full((1, CLASSES, 1, 1), -1000.0)
    certain[:, 2] = 1000.0
    model.encode_decode = lambda window, metas: certain.expand(1, CLASSES, *window.shape[2:])
    sample = SegDataSample(metainfo=dict(img_shape=(50, 70), ori_shape=(60, 80)))
    (result,) = model.predict(torch.zeros(1, 3, 50, 70), [sample])
    assert result.seg_logits.data.isfinite().all()
    assert (result.pred_sem_seg.data == 2).all()


@torch.no_grad()
def test_half_precision_is_averaged_in_single():
    model = build_model(clipped()).eval()
    pair = [torch.randn(1, CLASSES, 1, 1).half() for _ in range(2)]
    calls = iter(range(100))
    model.encode_decode = lambda window, metas: pair[next(calls) % 2].expand(1, CLASSES, *window.shape[2:])
    logits = model.inference(torch.zeros(1, 3, 20, 48).half(), [dict(ori_shape=(20, 48))])
    assert logits.dtype == torch.float32
    both = sum(half.float().softmax(1) for half in pair) / 2
    torch.testing.assert_close(logits[..., 40].exp(), both[..., 0].expand(1, CLASSES, 20))
    torch.testing.assert_close(
        logits[..., 3].exp(), pair[0].float().softmax(1)[..., 0].expand(1, CLASSES, 20)
    )


class Large(TorchDispatchMode):
    """Note the storage of every tensor that has at least ``numel`` elements of its own."""

    def __init__(self, numel: int):
        super().__init__()
        self.numel = numel
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= 4 * self.numel:
            # the tensor is kept, so that its address is not used again
            self.storages[result.untyped_storage().data_ptr()] = result
        return result


@torch.no_grad()
def test_one_map_of_all_classes_is_in_memory():
    model = build_model(clipped()).eval()
    model.encode_decode = lambda window, metas: window.new_zeros(1, CLASSES, *window.shape[2:])
    image, metas = torch.zeros(1, 3, 150, 200), [dict(ori_shape=(150, 200))]
    with Large(CLASSES * 150 * 200) as large:
        model.inference(image, metas)
    assert len(large.storages) == 1


@torch.no_grad()
@pytest.mark.parametrize(
    'test_cfg', [dict(mode='whole'), dict(mode='slide', crop_size=(32, 48), stride=(20, 32))]
)
def test_other_modes_are_mmsegmentation_s(test_cfg):
    segmentor = tiny_resnet(test_cfg=test_cfg)
    model = build_model(segmentor | dict(type='allspark_mmseg.ExtendedEncoderDecoder')).eval()
    own = build_model(segmentor).eval()
    own.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 70, 91)
    assert torch.equal(model.predict(image)[0].seg_logits.data, own.predict(image)[0].seg_logits.data)


def test_it_trains_as_mmsegmentation_s():
    model = build_model(clipped()).train()
    losses_in(model.loss(torch.randn(2, 3, *CROP), samples(2))).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    'changed, message',
    [
        (dict(crop_size=None), r'test_cfg\.crop_size is None'),
        (dict(stride=None), r'test_cfg\.stride is None'),
        (dict(stride=534), r'test_cfg\.stride is 534'),
        (dict(crop_size=(801,)), r'test_cfg\.crop_size is \(801,\)'),
        (dict(stride=(534, 0)), r'test_cfg\.stride is \(534, 0\)'),
        (dict(stride=(534, 534.0)), r'test_cfg\.stride is \(534, 534\.0\)'),
        (dict(stride=(534, 802)), r'test_cfg\.stride is \(534, 802\), expected at most test_cfg\.crop_size'),
        (dict(mode='slide_clip'), r"test_cfg\.mode is 'slide_clip'.*slide_probs_clipped"),
    ],
)
def test_a_bad_test_cfg_is_refused(changed, message):
    test_cfg = dict(mode='slide_probs_clipped', crop_size=(801, 801), stride=(534, 534)) | changed
    test_cfg = {key: value for key, value in test_cfg.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        build_model(clipped(test_cfg=test_cfg))


def test_a_sigmoid_head_is_refused():
    head = tiny_head() | dict(num_classes=2, out_channels=1, threshold=0.5)
    head['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    with pytest.raises(ValueError, match='out_channels is 1'):
        build_model(clipped(decode_head=head))


def at_multiples(multiple: int = 14, *, align_corners: bool = True, **overrides) -> dict:
    """The tiny ResNet, which takes images of any size, tested at multiples of one."""
    segmentor = tiny_resnet(test_cfg=dict(mode='whole', size_multiple=multiple)) | overrides
    head = segmentor['decode_head'] | dict(align_corners=align_corners)
    return segmentor | dict(type='allspark_mmseg.ExtendedEncoderDecoder', decode_head=head)


def test_nearest_multiple_is_the_released_formula():
    for multiple in (14, 15, 32):
        for side in range(1, 700):
            released = int(side / multiple + 0.5) * multiple
            assert nearest_multiple(side, multiple) == max(released, multiple), (side, multiple)
    found = {side: nearest_multiple(side, 14) for side in (6, 20, 21, 375, 500)}
    assert found == {6: 14, 20: 14, 21: 28, 375: 378, 500: 504}


@torch.no_grad()
@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize(
    'size, fitting',
    [
        ((61, 97), (56, 98)),
        ((63, 91), (70, 98)),
        ((70, 91), (70, 98)),
        ((5, 40), (14, 42)),
        ((75, 112), (70, 112)),
    ],
)
def test_at_multiples_the_image_and_its_logits_are_resized(size, fitting, align_corners):
    segmentor = at_multiples(align_corners=align_corners)
    model = build_model(segmentor).eval()
    twin = plain_twin(model, segmentor)
    images = torch.randn(2, 3, *size)

    def resized(x, to):
        return torch.nn.functional.interpolate(x, to, mode='bilinear', align_corners=align_corners)

    logits = torch.stack([result.seg_logits.data for result in twin.predict(resized(images, fitting))])
    expected = resized(logits, size)
    found = torch.stack([result.seg_logits.data for result in model.predict(images)])
    assert found.shape == (2, CLASSES, *size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_at_multiples_is_whole_where_the_sides_are_multiples():
    segmentor = at_multiples()
    model = build_model(segmentor).eval()
    image = torch.randn(2, 3, 70, 98)
    for whole, result in zip(plain_twin(model, segmentor).predict(image), model.predict(image), strict=True):
        assert torch.equal(result.seg_logits.data, whole.seg_logits.data)


@torch.no_grad()
@pytest.mark.parametrize('original', [(61, 97), (75, 105)])
def test_at_multiples_results_have_the_size_of_the_original_image(original):
    segmentor = at_multiples()
    model = build_model(dict(type='allspark_mmseg.SelfTraining', segmentor=segmentor)).eval()
    raw = torch.randint(256, (3, 61, 97), dtype=torch.uint8)
    metas = dict(img_shape=(61, 97), ori_shape=original, pad_shape=(61, 97))
    sample = SegDataSample(metainfo=metas)
    (result,) = model.test_step(dict(inputs=[raw], data_samples=[sample]))
    assert result.seg_logits.data.shape == (CLASSES, *original)
    assert result.metainfo['img_shape'] == (61, 97)
    inputs = model.data_preprocessor(dict(inputs=[raw], data_samples=[sample]))['inputs']
    expected = model.student.inference(inputs, [dict(metas)])
    if original != (61, 97):
        expected = torch.nn.functional.interpolate(expected, original, mode='bilinear', align_corners=True)
    torch.testing.assert_close(result.seg_logits.data, expected[0])


@torch.no_grad()
def test_at_multiples_a_vision_transformer_takes_any_image():
    arch = dict(embed_dims=8, depth=4, num_heads=2, out_indices=(0, 1, 2, 3))
    head = dict(type='allspark_mmseg.DINOv2DPTHead', channels=8, post_process_channels=(4, 4, 4, 4))
    segmentor = at_multiples(
        backbone=dict(type='allspark_mmseg.DINOv2', arch=arch),
        decode_head=head | dict(in_channels=[8] * 4, num_classes=CLASSES),
    )
    model = build_model(segmentor).eval()
    assert model.predict(torch.randn(1, 3, 50, 31))[0].seg_logits.data.shape == (CLASSES, 50, 31)
    with pytest.raises(ValueError, match=r'image size is 50 x 31 .*H = 42 or 56, W = 28 or 42'):
        plain_twin(model, segmentor).predict(torch.randn(1, 3, 50, 31))


@pytest.mark.parametrize(
    'test_cfg, message',
    [
        (dict(mode='whole', size_multiple=0), r'test_cfg\.size_multiple is 0, expected a number of pixels'),
        (dict(mode='whole', size_multiple=14.0), r'test_cfg\.size_multiple is 14\.0'),
        (dict(mode='whole', size_multiple=(14, 14)), r'test_cfg\.size_multiple is \(14, 14\)'),
        (dict(mode='whole', size_multiple=True), r'test_cfg\.size_multiple is True'),
        (
            dict(mode='slide', crop_size=(798, 798), stride=(532, 532), size_multiple=14),
            r"size_multiple needs mode 'whole', but test_cfg\.mode is 'slide'.* crop_size that is a multiple "
            'of 14',
        ),
    ],
)
def test_a_bad_size_multiple_is_refused(test_cfg, message):
    with pytest.raises(ValueError, match=message):
        build_model(at_multiples() | dict(test_cfg=test_cfg))


def released_v2_starts(size: int, crop: int, stride: int) -> list[int]:
    """UniMatch V2's windows along one direction: the last is shifted to end at the border."""
    starts = [0]
    while starts[-1] != size - crop:
        starts.append(min(starts[-1] + stride, size - crop))
    return starts


def windows_of_slide(size: tuple[int, int], crop: int, stride: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of what mode ``slide`` gives the network, in turn."""
    test_cfg = dict(mode='slide', crop_size=(crop, crop), stride=(stride, stride))
    model = build_model(tiny_resnet(type='allspark_mmseg.ExtendedEncoderDecoder', test_cfg=test_cfg)).eval()
    windows = []

    def stub(window, metas):
        windows.append((*window[0, :2, 0, 0].long().tolist(), *window.shape[2:]))
        return window.new_zeros(1, CLASSES, *window.shape[2:])

    model.encode_decode = stub
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in size)
    places = torch.stack(torch.meshgrid(rows, columns, indexing='ij'))[None]
    model.inference(places, [dict(img_shape=size, ori_shape=size)])
    return windows


@torch.no_grad()
def test_windows_of_slide_are_unimatch_v2_s_on_cityscapes():
    windows = windows_of_slide((1024, 2048), 798, 532)
    assert windows == [(top, left, 798, 798) for top in (0, 226) for left in (0, 532, 1064, 1250)]


@torch.no_grad()
@pytest.mark.parametrize('size', [(42, 42), (43, 69), (70, 71), (98, 126)])
def test_windows_of_slide_are_unimatch_v2_s(size):
    starts = [released_v2_starts(side, 42, 28) for side in size]
    expected = [(top, left, 42, 42) for top in starts[0] for left in starts[1]]
    assert windows_of_slide(size, 42, 28) == expected


@pytest.mark.parametrize(
    'size, crop, stride, windows',
    [
        (1024, 798, 532, [(0, 798), (226, 1024)]),
        (2048, 798, 532, [(0, 798), (532, 1330), (1064, 1862), (1250, 2048)]),
        (52, 32, 20, [(0, 32), (20, 52)]),
        (32, 32, 20, [(0, 32)]),
        (20, 32, 20, [(0, 20)]),
    ],
)
def test_shifted_windows_end_at_the_border(size, crop, stride, windows):
    assert [(window.start, window.stop) for window in shifted_windows(size, crop, stride)] == windows


@torch.no_grad()
@pytest.mark.parametrize('size', [(70, 91), (32, 48), (20, 100)])
def test_shifted_windows_average_probabilities(size):
    crop, stride = (32, 48), (20, 32)
    segmentor = clipped(crop, stride) | dict(
        test_cfg=dict(mode='slide_probs_shifted', crop_size=crop, stride=stride)
    )
    model = build_model(segmentor).eval()
    twin = plain_twin(model, segmentor)
    image = torch.randn(1, 3, *size)
    total = torch.zeros(CLASSES, *size)
    count = torch.zeros(size)
    for rows in shifted_windows(size[0], crop[0], stride[0]):
        for columns in shifted_windows(size[1], crop[1], stride[1]):
            (result,) = twin.predict(image[:, :, rows, columns])
            total[:, rows, columns] += result.seg_logits.data.softmax(0)
            count[rows, columns] += 1
    (found,) = model.predict(image)
    torch.testing.assert_close(found.seg_logits.data.softmax(0), total / count, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.pred_sem_seg.data[0], (total / count).argmax(0))
