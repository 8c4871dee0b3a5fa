"""Exported files against the model, for each family of networks."""

import json

import numpy as np
import onnx
import pytest
import torch

from allspark_mmseg.deployment import (
    OPSET,
    DeployedSegmentor,
    choose_network,
    export_model,
    largest_difference,
    open_file,
)

from .helpers.tiny_models import CLASSES, behind_bottleneck, build_model, tiny_head, tiny_segmentor

SIZE = (96, 112)


def efficientnet() -> dict:
    return tiny_segmentor(
        backbone=dict(type='allspark_mmseg.EfficientNetLite0'), decode_head=tiny_head([24, 40, 112, 320])
    )


def deeplab() -> dict:
    norm = dict(type='BN')
    backbone = dict(type='ResNetV1c', depth=50, base_channels=8, stem_channels=8, norm_cfg=norm)
    head = dict(
        type='allspark_mmseg.DeepLabV3PlusHead',
        in_channels=(32, 256),
        channels=16,
        c1_channels=8,
        num_classes=CLASSES,
        norm_cfg=norm,
        align_corners=True,
    )
    return tiny_segmentor(
        backbone=backbone | dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)), decode_head=head
    )


def dpt(**backbone) -> dict:
    own = dict(
        type='allspark_mmseg.DINOv2', arch=dict(embed_dims=16, depth=4, num_heads=2, out_indices=range(4))
    )
    return tiny_segmentor(
        type='allspark_mmseg.ExtendedEncoderDecoder',
        backbone=backbone or own,
        decode_head=dict(
            type='allspark_mmseg.DINOv2DPTHead',
            in_channels=[16] * 4,
            channels=8,
            post_process_channels=[8, 8, 8, 8],
            num_classes=CLASSES,
        ),
        test_cfg=dict(mode='whole', size_multiple=14),
    )


def vit() -> dict:
    backbone = dict(
        type='allspark_mmseg.VisionTransformer',
        img_size=(96, 112),
        patch_size=16,
        patch_bias=True,
        embed_dims=16,
        num_layers=2,
        num_heads=2,
        out_indices=(0, 1),
        interpolate_mode='bilinear',
    )
    return tiny_segmentor(backbone=backbone, decode_head=tiny_head([16, 16]))


def hub(kind: str, **config) -> dict:
    backbone = dict(
        type='allspark_mmseg.TransformersBackbone',
        out_indices=(1, 2, 3, 4),
        config=dict(model_type=kind, **config),
    )
    widths = config.get('hidden_sizes') or [config['hidden_size']] * 4
    return tiny_segmentor(backbone=backbone, decode_head=tiny_head(widths))


VIT = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2)
# network -> whether height and width are free in an ONNX file
NETWORKS = {
    'segformer': (tiny_segmentor, True),
    'allspark': (lambda: behind_bottleneck(tiny_segmentor()), True),
    'efficientnet': (efficientnet, True),
    'deeplab': (deeplab, True),
    'dpt': (dpt, True),
    'vit': (vit, True),
    'hub_dinov2': (lambda: hub('dinov2', image_size=56, **VIT), True),
    'hub_dinov3': (lambda: hub('dinov3_vit', image_size=64, intermediate_size=32, **VIT), True),
    'hub_convnext': (lambda: hub('convnext', hidden_sizes=[8, 8, 16, 16], depths=[1] * 4), True),
}


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Give zero-initialized layers and running statistics values, so that each part has an effect."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point() and value.numel() > 1:
                value.add_(0.1 * torch.rand_like(value))
    return model


def make(name: str) -> DeployedSegmentor:
    torch.manual_seed(0)
    return DeployedSegmentor(randomize(build_model(NETWORKS[name][0]())))


@pytest.mark.parametrize('name', NETWORKS)
def test_onnx_equals_the_model(name, tmp_path):
    model = make(name)
    file = export_model(model, tmp_path / 'x.onnx', SIZE, {'classes': '["a"]'}, 1e-4)
    print(name, file)
    assert file.dynamic == NETWORKS[name][1], file.reason
    assert bool(file.reason) != file.dynamic
    sizes = [SIZE, (131, 90)] if file.dynamic else [SIZE]
    run = open_file(file.path)
    for size in sizes:
        image = np.random.default_rng(1).uniform(0, 255, (2, 3, *size)).astype(np.float32)
        expected, found = model.predict(image), run(image)
        assert largest_difference(expected[0], found[0]) <= 1e-4
        assert found[1].dtype == np.uint8 and found[1].shape == (2, *size)
        assert (found[1] == expected[1]).mean() > 0.99
