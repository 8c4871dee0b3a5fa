"""Exported files against the model, for each family of networks."""

import gc
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmseg.structures import SegDataSample
from torch import nn

from allspark_mmseg.deployment import (
    PRECISIONS,
    TOLERANCE,
    DeployedSegmentor,
    export_model,
    largest_difference,
    open_file,
)
from allspark_mmseg.methods.allspark.bottleneck import AllSparkBottleneck

from ..helpers.tiny_models import (
    CLASSES,
    behind_bottleneck,
    build_model,
    same,
    tiny_head,
    tiny_resnet,
    tiny_segmentor,
)

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
NETWORKS = {
    'segformer': tiny_segmentor,
    'allspark': lambda: behind_bottleneck(tiny_segmentor()),
    'efficientnet': efficientnet,
    'deeplab': deeplab,
    'dpt': dpt,
    'vit': vit,
    'hub_dinov3': lambda: hub('dinov3_vit', image_size=64, intermediate_size=32, **VIT),
}


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Give zero-initialized layers and running statistics values, so that each part has an effect."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point() and value.numel() > 1:
                value.add_(0.1 * torch.rand_like(value))
    return model


def pixels(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (count, 3, height, width)).astype(np.float32)


def make(name: str) -> DeployedSegmentor:
    torch.manual_seed(0)
    return DeployedSegmentor(randomize(build_model(NETWORKS[name]())))


@pytest.mark.parametrize('name', NETWORKS)
def test_onnx_equals_the_model(name, tmp_path):
    model = make(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    file = export_model(model, tmp_path / 'x.onnx', SIZE, {'classes': '["a"]'}, 1e-4)
    assert file.dynamic and file.reason == ''
    assert same(before, model.state_dict()), 'the exporter changed the weights'
    run = open_file(file.path)
    for size in (SIZE, (131, 90)):
        image = pixels(2, *size)
        expected, found = model.predict(image), run(image)
        assert largest_difference(expected[0], found[0]) <= 1e-4
        assert found[1].dtype == np.uint8 and found[1].shape == (2, *size)
        assert (found[1] == found[0].argmax(1)).all()


def test_a_size_that_becomes_constant_is_fixed_and_the_reason_is_given(tmp_path):
    config = tiny_segmentor(backbone=swin(), decode_head=tiny_head([8, 16]))
    model = DeployedSegmentor(randomize(build_model(config)))
    gc.collect()
    gc.disable()
    try:
        file = export_model(model, tmp_path / 'x.onnx', (64, 96), {}, 1e-4)
        left = [found for found in gc.get_objects() if isinstance(found, onnxruntime.InferenceSession)]
    finally:
        gc.enable()
    assert not left, 'the sessions of the sizes that failed; collected in a forked process, they hang'
    assert not file.dynamic and file.reason in file.describe() and file.size == (64, 96)
    proto = onnx.load(str(file.path))
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value or side.dim_param for side in shape] == [1, 3, 64, 96]
    assert {entry.key: entry.value for entry in proto.metadata_props} == {'size': '64 x 96'}
    image = pixels(1, 64, 96)
    assert largest_difference(model.predict(image)[0], open_file(file.path)(image)[0]) <= 1e-4


def swin() -> dict:
    """MMSegmentation's Swin: its windows are counted in Python."""
    sizes = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 1], strides=(4, 2), out_indices=(0, 1))
    return dict(type='SwinTransformer', window_size=4, **sizes)


def test_pooling_to_any_size_can_be_exported(tmp_path):
    head = dict(
        type='PSPHead', in_channels=64, in_index=3, channels=8, pool_scales=(1, 2, 3), num_classes=CLASSES
    )
    model = DeployedSegmentor(randomize(build_model(tiny_resnet(decode_head=head))))
    file = export_model(model, tmp_path / 'x.onnx', (160, 192), {}, 1e-4)
    assert file.dynamic, file.reason


def test_a_network_that_cannot_be_exported_gives_one_sentence(tmp_path, capfd):
    config = hub('dinov2_with_registers', image_size=56, patch_size=14, **VIT)  # it resizes with antialiasing
    with pytest.raises(RuntimeError, match=r'^the network cannot be exported at 56 x 70 pixels .*bicubic'):
        export_model(DeployedSegmentor(build_model(config)), tmp_path / 'x.onnx', (56, 70), {}, 1e-4)
    assert 'graph' not in capfd.readouterr().out


def test_torchscript_equals_the_model(tmp_path):
    model = make('allspark')
    file = export_model(model, tmp_path / 'x.pt', SIZE, {'classes': '["a"]'}, 1e-4)
    extra = {'metadata.json': ''}
    torch.jit.load(str(file.path), _extra_files=extra)
    assert file.dynamic and json.loads(extra['metadata.json']) == {'classes': '["a"]', 'size': 'any'}
    image = pixels(1, 70, 131)
    assert largest_difference(model.predict(image)[0], open_file(file.path)(image)[0]) <= 1e-4


def test_fp16_is_half_as_large_and_close(tmp_path):
    network = make('segformer').network
    exact, half = (DeployedSegmentor(network, precision) for precision in PRECISIONS)
    file = export_model(half, tmp_path / 'x.onnx', SIZE, {}, TOLERANCE['fp16'])
    weights = [onnx.numpy_helper.to_array(value) for value in onnx.load(str(file.path)).graph.initializer]
    assert sum(value.nbytes for value in weights) < 0.6 * sum(value.nbytes for value in network.parameters())
    image = pixels(1, *SIZE)
    expected, found = exact.predict(image)[0], open_file(file.path)(image)[0]
    assert found.dtype == np.float32 and 0 < largest_difference(expected, found) <= TOLERANCE['fp16']
    assert next(network.parameters()).dtype == torch.float32


def test_the_input_is_rgb_and_not_normalized():
    model = make('segformer')
    image = pixels(1, 65, 65)
    bgr = torch.from_numpy(image[0, ::-1].copy())
    sample = SegDataSample(metainfo=dict(img_shape=(65, 65), ori_shape=(65, 65)))
    (result,) = model.network.test_step(dict(inputs=[bgr], data_samples=[sample]))
    logits, labels = model.predict(image)
    torch.testing.assert_close(torch.from_numpy(logits[0]), result.seg_logits.data, rtol=1e-5, atol=1e-5)
    assert np.array_equal(labels, result.pred_sem_seg.data.numpy())
    plain = tiny_segmentor()
    plain['data_preprocessor'] |= dict(bgr_to_rgb=False)
    network = build_model(plain)
    network.load_state_dict(model.network.state_dict())
    # this network takes BGR, so its file reverses RGB
    assert np.array_equal(
        DeployedSegmentor(network).predict(image)[0], model.predict(image[:, ::-1].copy())[0]
    )


def test_the_preprocessor_of_a_method_counts():
    segmentor = tiny_segmentor()
    preprocessor = segmentor.pop('data_preprocessor')
    method = dict(type='allspark_mmseg.FixMatch', segmentor=segmentor)
    own = dict(preprocessor, type='allspark_mmseg.MultiViewSegDataPreProcessor')
    model = build_model(method | dict(data_preprocessor=own))
    found = DeployedSegmentor(model.predictor, preprocessor=model.data_preprocessor)
    assert found.mean.flatten().tolist() == preprocessor['mean'] and not found.reverse


def test_one_output_channel_gets_a_threshold():
    head = tiny_head() | dict(num_classes=2, out_channels=1, threshold=0.3)
    head['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    model = DeployedSegmentor(build_model(tiny_segmentor(decode_head=head)))
    logits, labels = model.predict(pixels(2, 65, 65))
    assert np.array_equal(labels, (1 / (1 + np.exp(-logits[:, 0])) > 0.3).astype(np.uint8))


def test_only_an_encoder_decoder_is_deployed():
    with pytest.raises(ValueError, match='the model is a Conv2d, expected an EncoderDecoder'):
        DeployedSegmentor(nn.Conv2d(3, 2, 1))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match=r'allspark-mmseg\[export\]'):
        export_model(make('segformer'), tmp_path / 'x.onnx', SIZE, {}, 1e-4)


def test_allspark_has_one_graph_for_all_scores():
    """In evaluation, also with gradients, no branch depends on a tensor."""
    bottleneck = AllSparkBottleneck(8, CLASSES, crop_size=64, num_heads=1).eval()
    graph = torch.export.export(Labeled(bottleneck), (torch.randn(2, 8, 2, 3),))
    feature = 100 * torch.randn(2, 8, 2, 3)
    assert torch.equal(graph.module()(feature), bottleneck(feature, per_image=True))


class Labeled(torch.nn.Module):
    """The labeled stream of prediction."""

    def __init__(self, bottleneck: AllSparkBottleneck) -> None:
        super().__init__()
        self.bottleneck = bottleneck

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        return self.bottleneck(feature, per_image=True)
