"""ViT and DeiT classifiers to MMSegmentation's backbone, by the tool as a user starts it."""

import pytest
import torch
import torch.nn.functional as F

from allspark_mmseg.backbones import VisionTransformer

from ..helpers.official_states import assert_same_bits, layer, load_state, state_of

WIDTH, DEPTH, HEADS, HIDDEN, PATCH, GRID = 12, 3, 3, 48, 8, 4


def official_spec() -> dict[str, tuple]:
    """Keys and shapes of the official DeiT (timm's names), in order."""
    spec = [('cls_token', (1, 1, WIDTH)), ('pos_embed', (1, 1 + GRID**2, WIDTH))]
    spec += layer('patch_embed.proj', WIDTH, 3, PATCH, PATCH)
    for i in range(DEPTH):
        b = f'blocks.{i}'
        spec += layer(f'{b}.norm1', WIDTH) + layer(f'{b}.attn.qkv', 3 * WIDTH, WIDTH)
        spec += layer(f'{b}.attn.proj', WIDTH, WIDTH) + layer(f'{b}.norm2', WIDTH)
        spec += layer(f'{b}.mlp.fc1', HIDDEN, WIDTH) + layer(f'{b}.mlp.fc2', WIDTH, HIDDEN)
    return dict(spec + layer('norm', WIDTH) + layer('head', 10, WIDTH))


def in_openmmlabs_names(state: dict) -> dict:
    """The table of the method's page, read from right to left."""
    words = {
        'patch_embed.proj.': 'patch_embed.projection.',
        'blocks.': 'layers.',
        '.norm1.': '.ln1.',
        '.norm2.': '.ln2.',
        '.mlp.fc1.': '.ffn.layers.0.0.',
        '.mlp.fc2.': '.ffn.layers.1.',
    }
    found = {}
    for key, value in state.items():
        key = {'norm.weight': 'ln1.weight', 'norm.bias': 'ln1.bias'}.get(key, key)
        for official, openmmlab in words.items():
            key = key.replace(official, openmmlab)
        found[f'head.layers.{key}' if key.startswith('head.') else f'backbone.{key}'] = value
    return found


def plain_features(state: dict, images: torch.Tensor, layers: tuple[int, ...]) -> list[torch.Tensor]:
    """The network as its papers describe it, on official keys."""
    x = F.conv2d(images, state['patch_embed.proj.weight'], state['patch_embed.proj.bias'], stride=PATCH)
    size = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state['cls_token'].expand(len(x), -1, -1), x], 1) + state['pos_embed']
    features = []
    for i in range(DEPTH):
        w = {key.removeprefix(f'blocks.{i}.'): value for key, value in state.items()}
        y = F.layer_norm(x, (WIDTH,), w['norm1.weight'], w['norm1.bias'], 1e-6)
        q, k, v = F.linear(y, w['attn.qkv.weight'], w['attn.qkv.bias']).chunk(3, -1)
        mixed = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / (WIDTH / HEADS) ** 0.5
            mixed.append(scores.softmax(-1) @ v[..., part])
        x = x + F.linear(torch.cat(mixed, -1), w['attn.proj.weight'], w['attn.proj.bias'])
        y = F.layer_norm(x, (WIDTH,), w['norm2.weight'], w['norm2.bias'], 1e-6)
        y = F.gelu(F.linear(y, w['mlp.fc1.weight'], w['mlp.fc1.bias']))
        x = x + F.linear(y, w['mlp.fc2.weight'], w['mlp.fc2.bias'])
        if i in layers:
            features.append(x[:, 1:].transpose(1, 2).unflatten(2, size))
    return features


@pytest.fixture
def official() -> dict:
    return {key: value - 0.5 for key, value in state_of(official_spec()).items()}


@torch.no_grad()
@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: {'model': state},
        lambda state: state,
        lambda state: {'state_dict': in_openmmlabs_names(state), 'meta': {}},
        lambda state: {f'module.{key}': value for key, value in in_openmmlabs_names(state).items()},
    ],
)
def test_the_output_equals_the_described_network(convert, tmp_path, official, wrap):
    torch.save(wrap(official), tmp_path / 'deit.pth')
    printed = convert('deit2mmseg', tmp_path / 'deit.pth', tmp_path / 'ours.pth')
    assert 'ViT of width 12 and depth 3, 4 x 4 patches of 8; not converted' in printed
    assert 'head.' in printed
    backbone = VisionTransformer(
        img_size=GRID * PATCH,
        patch_size=PATCH,
        patch_bias=True,
        embed_dims=WIDTH,
        num_layers=DEPTH,
        num_heads=HEADS,
        mlp_ratio=HIDDEN // WIDTH,
        out_indices=(0, 2),
        norm_cfg=dict(type='LN', eps=1e-6),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'ours.pth')),
    )
    for parameter in backbone.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    backbone.init_weights()
    images = torch.randn(2, 3, GRID * PATCH, GRID * PATCH)
    for found, expected in zip(backbone(images), plain_features(official, images, (0, 2)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_both_sources_give_the_same_weights(convert, tmp_path, official):
    for name, state in dict(official=official, openmmlab=in_openmmlabs_names(official)).items():
        torch.save(state, tmp_path / f'{name}.pth')
        convert('deit2mmseg', tmp_path / f'{name}.pth', tmp_path / f'{name}_mmseg.pth')
    assert_same_bits(*(load_state(tmp_path / f'{name}_mmseg.pth') for name in ('official', 'openmmlab')))


@pytest.mark.parametrize(
    'change, printed',
    [
        (lambda state: state.pop('blocks.1.attn.qkv.bias'), 'missing key: layers.1.attn.attn.in_proj_bias'),
        (lambda state: state.update(dist_token=torch.zeros(1, 1, WIDTH)), 'unexpected key: dist_token'),
        (lambda state: state.update(cls_token=torch.zeros(1, 1, 5)), 'wrongly shaped'),
    ],
)
def test_other_files_are_refused(convert, tmp_path, official, change, printed):
    change(official)
    torch.save(official, tmp_path / 'deit.pth')
    refused = convert('deit2mmseg', tmp_path / 'deit.pth', tmp_path / 'ours.pth', refused=True)
    assert printed in refused and 'without distillation token' in refused
    assert not (tmp_path / 'ours.pth').exists()
