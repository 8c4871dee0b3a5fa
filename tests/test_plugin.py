"""A config change turns a stock model into AllSpark, and MMSegmentation's own tools run it."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model, init_model, show_result_pyplot

from .helpers.tiny_models import (
    CLASSES,
    CROP,
    batch,
    build_model,
    gradients,
    losses_in,
    samples,
    tiny_segmentor,
)


def auxiliary_head(in_channels: int) -> dict:
    return dict(
        type='FCNHead', in_channels=in_channels, in_index=2, channels=8, num_convs=1, concat_input=False,
        num_classes=CLASSES, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
    )  # fmt: skip


def upernet_swin() -> dict:
    return tiny_segmentor(
        backbone=dict(
            type='SwinTransformer', embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=3
        ),
        decode_head=dict(
            type='UPerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3),
            channels=8, num_classes=CLASSES, norm_cfg=dict(type='BN'),
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        ),
        auxiliary_head=auxiliary_head(32),
    )  # fmt: skip


def fcn_resnet() -> dict:
    """Dilated ResNet, whose deepest feature has stride 8."""
    return tiny_segmentor(
        backbone=dict(
            type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1), norm_cfg=dict(type='BN'),
        ),
        decode_head=dict(
            type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=2, num_classes=CLASSES,
            norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        ),
        auxiliary_head=auxiliary_head(32),
    )  # fmt: skip


STOCK = {'upernet_swin': (upernet_swin, 32), 'fcn_resnet': (fcn_resnet, 8)}


def with_bottleneck(segmentor: dict, stride: int = 32) -> dict:
    bottleneck = dict(in_channels=64, channels=16, stride=stride, crop_size=CROP)
    head = dict(type='allspark_mmseg.AllSparkHead', bottleneck=bottleneck, decoder=segmentor['decode_head'])
    return segmentor | dict(decode_head=head)


@pytest.fixture(params=STOCK)
def stock(request) -> dict:
    """A stock config whose decode head is wrapped in an ``AllSparkHead``."""
    make, stride = STOCK[request.param]
    return with_bottleneck(make(), stride)


@pytest.mark.parametrize('ready', [False, True])
def test_stock_model_trains_as_allspark(stock, ready):
    model = build_model(dict(type='allspark_mmseg.AllSpark', segmentor=stock)).train()
    model.memory_ready.fill_(ready)
    entries = model.loss(*batch())
    assert {'sup.decode.loss_ce', 'sup.aux.loss_ce', 'unsup.loss_ce'} <= set(entries)
    losses_in(entries).backward()
    all_gradients = gradients(model)
    for part in ('backbone', 'decode_head.decoder', 'decode_head.bottleneck', 'auxiliary_head'):
        of_part = [g for name, g in all_gradients.items() if name.startswith(f'student.{part}.')]
        assert any(gradient.abs().max() > 0 for gradient in of_part), part
    assert all(torch.isfinite(gradient).all() for gradient in all_gradients.values())
    with torch.no_grad():
        (result,) = model.eval().predict(torch.randn(1, 3, 70, 91))
    assert result.pred_sem_seg.data.shape == (1, 70, 91)


def test_auxiliary_heads_see_only_labeled_images():
    """Swin has no batch norm, so the features of an image do not depend on the other images."""
    inputs, data_samples = batch()
    entries = []
    for _ in range(2):
        inputs['weak'] = torch.randn_like(inputs['weak'])
        torch.manual_seed(0)
        config = dict(type='allspark_mmseg.AllSpark', segmentor=with_bottleneck(upernet_swin()))
        entries.append(build_model(config).train().loss(inputs, data_samples))
    torch.testing.assert_close(entries[0]['sup.aux.loss_ce'], entries[1]['sup.aux.loss_ce'])
    assert not torch.allclose(entries[0]['sup.decode.loss_ce'], entries[1]['sup.decode.loss_ce'])


def test_the_head_trains_in_a_plain_segmentor(stock):
    model = build_model(stock).train()
    bottleneck = model.decode_head.bottleneck
    before = {name: value.clone() for name, value in bottleneck.memory.named_buffers()}
    entries = model.loss(torch.randn(2, 3, *CROP), samples(2))
    assert {'decode.loss_ce', 'aux.loss_ce'} <= set(entries)
    losses_in(entries).backward()
    assert bottleneck.labeled_attention.query.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in bottleneck.unlabeled_attention.parameters())
    assert all(torch.equal(value, before[name]) for name, value in bottleneck.memory.named_buffers())


@torch.no_grad()
def test_the_head_predicts_in_a_plain_segmentor(stock):
    model = build_model(stock).eval()
    images = torch.randn(2, 3, 70, 91)
    for image, sample in zip(images, model.predict(images), strict=True):
        assert sample.seg_logits.data.shape == (CLASSES, 70, 91)
        (alone,) = model.predict(image[None])
        torch.testing.assert_close(alone.seg_logits.data, sample.seg_logits.data, rtol=1e-5, atol=1e-5)


def test_slide_inference():
    segmentor = with_bottleneck(tiny_segmentor(test_cfg=dict(mode='slide', crop_size=CROP, stride=(43, 43))))
    model = build_model(dict(type='allspark_mmseg.AllSpark', segmentor=segmentor)).eval()
    image = torch.randn(1, 3, 97, 120)
    with torch.no_grad():
        (result,) = model.predict(image)
        whole = model._forward(image)
    assert result.seg_logits.data.shape == (CLASSES, 97, 120)
    resized = torch.nn.functional.interpolate(whole, (97, 120), mode='bilinear')
    assert not torch.allclose(result.seg_logits.data[None], resized, atol=1e-4)


def write_config(path) -> None:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    segmentor = with_bottleneck(tiny_segmentor())
    model = dict(type='allspark_mmseg.AllSpark', segmentor=segmentor)
    Config(dict(default_scope='mmseg', model=model, test_pipeline=pipeline)).dump(path)


@pytest.mark.parametrize('from_file', [False, True])
def test_inference_api(tmp_path, from_file):
    write_config(tmp_path / 'allspark.py')
    trained = build_model(Config.fromfile(tmp_path / 'allspark.py').model).eval()
    meta = dict(
        dataset_meta=dict(classes=('a', 'b', 'c', 'd'), palette=[[i * 60, 0, 0] for i in range(CLASSES)])
    )
    torch.save(dict(state_dict=trained.state_dict(), meta=meta), tmp_path / 'trained.pth')

    model = init_model(str(tmp_path / 'allspark.py'), str(tmp_path / 'trained.pth'), device='cpu')
    assert model.dataset_meta == meta['dataset_meta']
    image = np.random.default_rng(0).integers(0, 256, (50, 83, 3), dtype=np.uint8)
    source: np.ndarray | str = image
    if from_file:
        import mmcv

        source = str(tmp_path / 'image.png')
        mmcv.imwrite(image, source)
    result = inference_model(model, source)

    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    mean, std = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([60.0, 55.0, 50.0])
    normalized = (rgb - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        (expected,) = trained.predict(normalized)
    torch.testing.assert_close(result.seg_logits.data, expected.seg_logits.data, rtol=1e-4, atol=1e-5)

    out_file = tmp_path / 'picture.png'
    drawn = show_result_pyplot(
        model, source, result, out_file=str(out_file), show=False, with_labels=False, draw_gt=False
    )
    assert drawn.shape == (50, 83, 3)
    assert out_file.stat().st_size > 0


def test_inference_api_accepts_a_batch(tmp_path):
    write_config(tmp_path / 'allspark.py')
    model = init_model(str(tmp_path / 'allspark.py'), device='cpu')
    images = [np.full((40, 50, 3), value, dtype=np.uint8) for value in (10, 200)]
    results = inference_model(model, images)
    assert [result.pred_sem_seg.data.shape for result in results] == [(1, 40, 50)] * 2
