"""State dicts with the keys and shapes of the releases, and the networks that they belong to."""

from pathlib import Path

import torch
from torch import Tensor

# a tiny MiT
DEPTHS, WIDTHS = (1, 2, 1, 1), (8, 16, 40, 64)
# a tiny UniMatch V2
TINY = dict(width=24, depth=4)
HEAD = dict(channels=8, levels=(6, 9, 10, 12), classes=5)
UNUSED = 'head.scratch.refinenet4.resConfUnit1.'

Spec = dict[str, tuple]


def layer(name: str, *weight: int) -> list[tuple[str, tuple]]:
    """Keys and shapes of a layer with a bias."""
    return [(f'{name}.weight', weight), (f'{name}.bias', weight[:1])]


def mit_spec(depths: tuple = DEPTHS, widths: tuple = WIDTHS) -> Spec:
    """Keys and shapes of an official MiT, in the official order."""
    spec: list[tuple[str, tuple]] = []
    for s, c in enumerate(widths, 1):
        k = 7 if s == 1 else 3
        before = 3 if s == 1 else widths[s - 2]
        spec += layer(f'patch_embed{s}.proj', c, before, k, k) + layer(f'patch_embed{s}.norm', c)
    for s, c in enumerate(widths, 1):
        r = 2 ** (4 - s)
        for i in range(depths[s - 1]):
            b = f'block{s}.{i}'
            spec += layer(f'{b}.norm1', c) + layer(f'{b}.attn.q', c, c) + layer(f'{b}.attn.kv', 2 * c, c)
            spec += layer(f'{b}.attn.proj', c, c)
            if s <= 3:
                spec += layer(f'{b}.attn.sr', c, c, r, r) + layer(f'{b}.attn.norm', c)
            spec += layer(f'{b}.norm2', c) + layer(f'{b}.mlp.fc1', 4 * c, c)
            spec += layer(f'{b}.mlp.dwconv.dwconv', 4 * c, 1, 3, 3) + layer(f'{b}.mlp.fc2', c, 4 * c)
        spec += layer(f'norm{s}', c)
    return dict(spec)


def allspark_spec(
    depths: tuple = DEPTHS,
    widths: tuple = WIDTHS,
    *,
    channels: int = 32,
    classes: int = 4,
    positions: int = 9,
) -> Spec:
    """Keys and shapes of an official AllSpark model, or of its baseline if ``positions`` is 0, in order."""
    spec: list[tuple[str, tuple]] = [
        (f'backbone.{key}', shape) for key, shape in mit_spec(depths, widths).items()
    ]
    d = widths[-1]
    if positions:
        a = 'decoder.allspark'
        spec += layer(f'{a}.map_in.0', d, d, 1, 1) + layer(f'{a}.attn_norm', d)
        spec += [(f'{a}.attn.queue_ptr', (classes,)), (f'{a}.attn.kv_queue', (classes, d, positions))]
        names = ('q_u', 'k_u', 'v_u', 'q_l2u', 'k_l2u', 'v_l2u')
        spec += [(f'{a}.attn.{name}.weight', (2 * d, d)) for name in names]
        spec += [(f'{a}.attn.{name}.weight', (d, 2 * d)) for name in ('out_u', 'out_l2u')]
        spec += layer(f'{a}.encoder_norm', d) + layer(f'{a}.map_out.0', d, d, 1, 1)
    decoder = 'decoder.decoder'
    for s in (4, 3, 2, 1):
        spec += layer(f'{decoder}.linear_c{s}.proj', channels, widths[s - 1])
    spec += [(f'{decoder}.linear_fuse.conv.weight', (channels, 4 * channels, 1, 1))]
    spec += [
        (f'{decoder}.linear_fuse.bn.{kind}', (channels,))
        for kind in ('weight', 'bias', 'running_mean', 'running_var')
    ]
    spec += [(f'{decoder}.linear_fuse.bn.num_batches_tracked', ())]
    return dict(spec + layer(f'{decoder}.linear_pred', classes, channels, 1, 1))


def state_of(spec: Spec) -> dict[str, Tensor]:
    """Random values for keys and shapes; counters are small integers."""
    return {
        key: torch.randint(7, shape)
        if key.endswith(('queue_ptr', 'num_batches_tracked'))
        else torch.rand(shape)
        for key, shape in spec.items()
    }


def assert_same_bits(found: dict, expected: dict) -> None:
    """Assert the same keys in the same order, and equal tensors."""
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape, key
        assert torch.equal(found[key], value), key


def official_file(path: Path, state: dict, **others: object) -> Path:
    """Write a state dict as the official training scripts do."""
    torch.save({'model': {f'module.{key}': value for key, value in state.items()}, **others}, path)
    return path


def load_state(path: Path) -> dict:
    """Read the state dict of a converted file."""
    return torch.load(path, weights_only=True)['state_dict']


def dinov2_spec(width: int, depth: int, *, swiglu: bool = False) -> Spec:
    """Keys and shapes of an official DINOv2, in order."""
    spec: list[tuple[str, tuple]] = [
        ('cls_token', (1, 1, width)),
        ('pos_embed', (1, 1370, width)),
        ('mask_token', (1, width)),
    ]
    spec += layer('patch_embed.proj', width, 3, 14, 14)
    for i in range(depth):
        b = f'blocks.{i}'
        spec += layer(f'{b}.norm1', width) + layer(f'{b}.attn.qkv', 3 * width, width)
        spec += layer(f'{b}.attn.proj', width, width) + [(f'{b}.ls1.gamma', (width,))]
        spec += layer(f'{b}.norm2', width)
        if swiglu:
            hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
            spec += layer(f'{b}.mlp.w12', 2 * hidden, width) + layer(f'{b}.mlp.w3', width, hidden)
        else:
            spec += layer(f'{b}.mlp.fc1', 4 * width, width) + layer(f'{b}.mlp.fc2', width, 4 * width)
        spec += [(f'{b}.ls2.gamma', (width,))]
    return dict(spec + layer('norm', width))


def dpt_spec(width: int, *, channels: int, levels: tuple[int, ...], classes: int) -> Spec:
    """Keys and shapes of UniMatch V2's decoder, in order."""
    spec: list[tuple[str, tuple]] = []
    for i, level in enumerate(levels):
        spec += layer(f'projects.{i}', level, width, 1, 1)
    for i, kernel in {0: 4, 1: 2, 3: 3}.items():
        spec += layer(f'resize_layers.{i}', levels[i], levels[i], kernel, kernel)
    spec += [(f'scratch.layer{i}_rn.weight', (channels, level, 3, 3)) for i, level in enumerate(levels, 1)]
    for i in (1, 2, 3, 4):
        block = f'scratch.refinenet{i}'
        spec += layer(f'{block}.out_conv', channels, channels, 1, 1)
        for unit in (1, 2):
            for conv in (1, 2):
                spec += layer(f'{block}.resConfUnit{unit}.conv{conv}', channels, channels, 3, 3)
    spec += layer('scratch.output_conv.0', channels, channels, 3, 3)
    return dict(spec + layer('scratch.output_conv.2', classes, channels, 1, 1))


def unimatch_v2_spec(backbone: dict = TINY, head: dict = HEAD) -> Spec:
    """Keys and shapes of an official UniMatch V2 model, in order."""
    parts = {'backbone.': dinov2_spec(**backbone), 'head.': dpt_spec(backbone['width'], **head)}
    return {prefix + key: shape for prefix, part in parts.items() for key, shape in part.items()}


def unimatch_v2_segmentor(backbone: dict = TINY, head: dict = HEAD) -> dict:
    """Config of the network with an official state of these sizes."""
    arch = dict(
        embed_dims=backbone['width'],
        depth=backbone['depth'],
        num_heads=3,
        out_indices=(0, 1, 2, 3),
        ffn='swiglu' if backbone.get('swiglu') else 'mlp',
    )
    return dict(
        type='allspark_mmseg.ExtendedEncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=dict(type='allspark_mmseg.DINOv2', arch=arch),
        decode_head=dict(
            type='allspark_mmseg.DINOv2DPTHead',
            in_channels=[backbone['width']] * 4,
            channels=head['channels'],
            post_process_channels=head['levels'],
            num_classes=head['classes'],
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        ),
        test_cfg=dict(mode='whole', size_multiple=14),
    )
