"""The AllSpark authors' state dicts in the names of ``EncoderDecoder(MiT, AllSparkHead(AllMLPHead))``."""

import re

from torch import Tensor

from .mit import mit_to_mmseg

_BOTTLENECK = {
    'map_in.0': 'map_in.0',
    'map_out.0': 'map_out.0',
    'attn_norm': 'norm_in',
    'encoder_norm': 'norm_out',
    'attn.q_u': 'unlabeled_attention.query',
    'attn.k_u': 'unlabeled_attention.key',
    'attn.v_u': 'unlabeled_attention.value',
    'attn.out_u': 'unlabeled_attention.out',
    'attn.q_l2u': 'labeled_attention.query',
    'attn.k_l2u': 'labeled_attention.key',
    'attn.v_l2u': 'labeled_attention.value',
    'attn.out_l2u': 'labeled_attention.out',
}
_MEMORY = {'attn.kv_queue': 'memory.rows', 'attn.queue_ptr': 'memory.pointer'}


def bottleneck_to_mmseg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the official bottleneck's keys (``map_in.0.weight``, ``attn.q_u.weight``, ...).

    Raises:
        KeyError: a key that the official bottleneck does not have.
    """
    converted = {}
    for key, value in state.items():
        module, _, kind = key.rpartition('.')
        name = _MEMORY.get(key) or (f'{_BOTTLENECK[module]}.{kind}' if module in _BOTTLENECK else None)
        if name is None:
            raise KeyError(f'{key!r} is not a key of the official AllSpark bottleneck')
        converted[name] = value
    return converted


def decoder_to_mmseg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the official all-MLP decoder's keys (``linear_c4.proj.weight``, ...) for ``AllMLPHead``.

    Raises:
        KeyError: a key that the official decoder does not have.
    """
    converted = {}
    for key, value in state.items():
        if match := re.fullmatch(r'linear_c([1-4])\.proj\.(weight|bias)', key):
            name = f'projections.{int(match[1]) - 1}.{match[2]}'
        elif match := re.fullmatch(r'linear_fuse\.(conv|bn)\.(.+)', key):
            name = f'fuse.{match[1]}.{match[2]}'
        elif match := re.fullmatch(r'linear_pred\.(weight|bias)', key):
            name = f'conv_seg.{match[1]}'
        else:
            raise KeyError(f'{key!r} is not a key of the official all-MLP decoder')
        converted[name] = value
    return converted


def allspark_to_mmseg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of an official AllSpark model, or of its SegFormer baselines.

    Args:
        state: official key -> tensor; a ``module.`` prefix is taken off.

    Returns:
        dict: the keys of an ``EncoderDecoder`` (``backbone.*``, ``decode_head.*``).

    Raises:
        KeyError: a key that no official AllSpark model has.
    """
    parts = {'backbone.': {}, 'decoder.allspark.': {}, 'decoder.decoder.': {}}
    for key, value in state.items():
        name = key.removeprefix('module.')
        prefix = next((prefix for prefix in parts if name.startswith(prefix)), None)
        if prefix is None:
            raise KeyError(
                f'{key!r} is not a key of an official AllSpark model, which begin with {list(parts)}'
            )
        parts[prefix][name.removeprefix(prefix)] = value
    has_bottleneck = bool(parts['decoder.allspark.'])
    head = 'decode_head.decoder.' if has_bottleneck else 'decode_head.'
    return {
        **{f'backbone.{key}': value for key, value in mit_to_mmseg(parts['backbone.']).items()},
        **{
            f'decode_head.bottleneck.{key}': value
            for key, value in bottleneck_to_mmseg(parts['decoder.allspark.']).items()
        },
        **{f'{head}{key}': value for key, value in decoder_to_mmseg(parts['decoder.decoder.']).items()},
    }
