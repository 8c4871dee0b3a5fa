"""Prediction of images of any size, and the networks and images that are used."""

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from PIL import Image

from allspark_mmseg.prediction import ImageLoader, LoadedImage
from allspark_mmseg.suggestion import prediction
from allspark_mmseg.suggestion.networks import Network, find_networks
from allspark_mmseg.suggestion.prediction import (
    PooledFeature,
    predict_image,
    predict_logits,
    score_image,
)
from allspark_mmseg.suggestion.sheet import to_display

from ..helpers.tiny_models import CLASSES, build_model, tiny_head, tiny_segmentor

SIZE = (70, 110)


@pytest.fixture(scope='module')
def network(tmp_path_factory) -> Network:
    init_default_scope('mmseg')  # this fixture runs before the one of conftest.py
    torch.manual_seed(0)
    model = build_model(tiny_segmentor()).eval()
    return Network('a', tmp_path_factory.mktemp('n') / 'a.pth', model, model.data_preprocessor)


@pytest.fixture
def image(tmp_path) -> LoadedImage:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(55, 35), keep_ratio=False),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    config = dict(model={}, test_dataloader=dict(dataset=dict(pipeline=steps)))
    return ImageLoader(Config(config))(tmp_path / 'a.png')


def test_the_mask_is_that_of_mmsegmentation(network, image):
    model = network.segmentor
    with torch.no_grad():
        (sample,) = model.test_step(
            dict(inputs=[image.inputs[0]], data_samples=[image.data_samples[0].clone()])
        )
    predicted = predict_image(network, image)
    assert predicted.mask.shape == SIZE
    np.testing.assert_array_equal(predicted.mask, sample.pred_sem_seg.data[0].numpy())
    entropy = torch.special.entr(sample.seg_logits.data.softmax(0)).sum(0) / np.log(CLASSES)
    np.testing.assert_allclose(predicted.entropy, entropy.numpy(), atol=2e-3)


def test_large_images_are_predicted_in_windows(network, image, monkeypatch):
    whole = predict_image(network, image)
    record, feature = score_image([network, network], image.inputs[0])
    monkeypatch.setattr(prediction, 'max_pixels', lambda _: 32 * 32)
    sizes = []
    handle = network.segmentor.backbone.register_forward_pre_hook(lambda _, x: sizes.append(x[0].shape[-2:]))
    parts = predict_image(network, image)
    windowed, other = score_image([network, network], image.inputs[0])
    handle.remove()
    assert len(sizes) == 3 * 2 * 2 and max(height * width for height, width in sizes) <= 32 * 32
    assert parts.mask.shape == whole.mask.shape == SIZE
    # as the sliding windows of MMSegmentation
    model = network.segmentor
    monkeypatch.setattr(model, 'test_cfg', ConfigDict(mode='slide', crop_size=(32, 32), stride=(24, 24)))
    item = dict(inputs=[image.inputs[0]], data_samples=[image.data_samples[0].clone()])
    with torch.no_grad():
        (sample,) = model.test_step(item)
    np.testing.assert_array_equal(parts.mask, sample.pred_sem_seg.data[0].numpy())
    assert windowed['uncertainty'] == pytest.approx(record['uncertainty'], rel=0.2)
    assert record['disagreement'] < 1e-6 and feature.shape == other.shape == (64,)


def test_the_feature_is_the_mean_of_the_last_stage(network, image):
    _, feature = score_image([network], image.inputs[0])
    batch = network.preprocessor(dict(inputs=[image.inputs[0]]), False)
    with torch.no_grad():
        last = network.segmentor.extract_feat(batch['inputs'])[-1]
    np.testing.assert_allclose(feature, last.mean((0, 2, 3)).numpy(), rtol=1e-4, atol=1e-5)


def test_other_forms_of_backbones():
    maps = torch.arange(24.0).reshape(1, 3, 2, 4)
    outputs = [maps, (maps + 9, maps), ((maps, torch.zeros(1, 3)),), maps.flatten(2).transpose(1, 2)]
    for output in outputs:
        pooled = PooledFeature()
        pooled.add(output)
        assert pooled.mean.tolist() == [3.5, 11.5, 19.5]


def test_one_sigmoid_channel_becomes_two_classes(image):
    head = tiny_head() | dict(
        num_classes=2, out_channels=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)
    )
    model = build_model(tiny_segmentor(decode_head=head)).eval()
    network = Network('a', image, model, model.data_preprocessor)
    logits = predict_logits(network, image.inputs[0])
    with torch.no_grad():
        (sample,) = model.test_step(
            dict(inputs=[image.inputs[0]], data_samples=[image.data_samples[0].clone()])
        )
    assert len(logits) == 2
    small = torch.nn.functional.interpolate(logits.softmax(0)[None, 1:], SIZE, mode='bilinear')[0]
    assert (small - sample.seg_logits.data).abs().mean() < 0.01


def test_teacher_and_student_if_the_teacher_was_trained(tmp_path):
    method = dict(type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor(), teacher=dict(momentum=0.1))
    model = build_model(method | dict(predict_on='teacher')).eval()
    assert [each.name for each in find_networks(model, tmp_path / 'iter_1.pth')] == ['student']
    model.teacher.update_parameters(model.student)
    first, second = find_networks(model, tmp_path / 'iter_1.pth')
    assert first.segmentor is model.teacher.module and second.segmentor is model.student


def test_other_images_than_rgb_are_stretched_for_display():
    gray16 = np.linspace(100, 4000, 64, dtype=np.uint16).reshape(1, 8, 8)
    shown = to_display(np.tile(gray16, (1, 4, 4)))
    assert shown.shape == (32, 32, 3) and shown.dtype == np.uint8 and shown.max() > 250 and shown.min() < 5
    bands = np.zeros((4, 2, 2), np.uint8)
    bands[0] = 7  # BGR: the first band is blue
    assert to_display(bands)[0, 0].tolist() == [0, 0, 7]
