"""UniMatch V2's network (DINOv2 and DPT): golden vectors, a plain derivation, sizes and learning rates."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from torch import Tensor

from allspark_mmseg.converters import convert_unimatch_v2
from allspark_mmseg.converters.unimatch_v2 import UniMatchV2Network

from .helpers.configs import ROOT
from .helpers.golden import assert_close_to_largest, recorded_network
from .helpers.official_states import HEAD, TINY, UNUSED, unimatch_v2_segmentor, unimatch_v2_spec

MODEL_BASES = ROOT / 'configs' / '_base_' / 'models'
ATTENTION_HEADS = 3
# UniMatch V2 for every model size and data set: lr for the backbone, 40 lr for all other parameters
OPTIM_WRAPPER = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-6, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=40.0)}),
)


def base(size: str) -> Config:
    """Return the model of a base config without pretrained weights."""
    config = Config.fromfile(MODEL_BASES / f'dpt_dinov2-{size}14.py').model
    config.backbone.init_cfg = None
    return config


@torch.no_grad()
@pytest.mark.parametrize('name, size', [('small', 's'), ('base', 'b')])
def test_network_of_real_size_gives_the_released_logits(golden, name, size):
    """An official state dict goes through the converter into the model of the base config."""
    vectors = golden(f'unimatch_v2_dinov2_{name}_forward')
    state, image = recorded_network(vectors)
    config = base(size)
    config.decode_head.num_classes = UniMatchV2Network.from_state_dict(state).num_classes
    model = MODELS.build(config).eval()
    model.load_state_dict(convert_unimatch_v2(state)[0], strict=True)

    logits = model.predict(image)[0].seg_logits.data[None]
    torch.testing.assert_close(logits[:, :, ::4, ::4], vectors['logits_every_4th'], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits.mean((2, 3)), vectors['logits_mean'], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits.std((2, 3)), vectors['logits_std'], rtol=0, atol=1e-5)
    assert (logits.argmax(1) == vectors['argmax'].long()).float().mean() > 0.999


class PlainNetwork:
    """The network written from its description, with the weights of an official state dict."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state

    def logits(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, H, W)."""
        return self.bilinear(self.dpt(self.dinov2(image)), image.shape[2:])

    def __call__(self, name: str) -> Tensor:
        return self.state[name]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self(f'{name}.weight').T + self(f'{name}.bias')

    def norm(self, x: Tensor, name: str) -> Tensor:
        centered = x - x.mean(-1, keepdim=True)
        scaled = centered / (centered.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self(f'{name}.weight') + self(f'{name}.bias')

    def attention(self, x: Tensor, name: str) -> Tensor:
        n, length, width = x.shape
        qkv = self.linear(x, f'{name}.qkv').reshape(n, length, 3, ATTENTION_HEADS, -1)
        q, k, v = qkv.unbind(2)
        scores = torch.einsum('nihc,njhc->nhij', q, k) / math.sqrt(width / ATTENTION_HEADS)
        mixed = torch.einsum('nhij,njhc->nihc', scores.softmax(-1), v)
        return self.linear(mixed.reshape(n, length, width), f'{name}.proj')

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        if f'{name}.w12.weight' in self.state:
            gate, value = self.linear(x, f'{name}.w12').chunk(2, -1)
            return self.linear(gate * gate.sigmoid() * value, f'{name}.w3')
        x = self.linear(x, f'{name}.fc1')
        return self.linear(x * 0.5 * (1 + torch.erf(x / math.sqrt(2))), f'{name}.fc2')

    def dinov2(self, image: Tensor) -> list[Tensor]:
        n, _, height, width = image.shape
        grid = height // 14, width // 14
        patches = image.reshape(n, 3, grid[0], 14, grid[1], 14).permute(0, 2, 4, 1, 3, 5)
        kernel = self('backbone.patch_embed.proj.weight').flatten(1)
        tokens = patches.reshape(n, grid[0] * grid[1], -1) @ kernel.T + self('backbone.patch_embed.proj.bias')
        x = torch.cat([self('backbone.cls_token').expand(n, -1, -1), tokens], 1) + self.positions(grid)
        levels = []
        for i in range(TINY['depth']):
            b = f'backbone.blocks.{i}'
            x = x + self.attention(self.norm(x, f'{b}.norm1'), f'{b}.attn') * self(f'{b}.ls1.gamma')
            x = x + self.feed_forward(self.norm(x, f'{b}.norm2'), f'{b}.mlp') * self(f'{b}.ls2.gamma')
            patches = self.norm(x, 'backbone.norm')[:, 1:]
            levels.append(patches.transpose(1, 2).reshape(n, -1, *grid))
        return levels

    def positions(self, grid: tuple[int, int]) -> Tensor:
        own, trained = self('backbone.pos_embed').split([1, 37 * 37], 1)
        rows, columns = (cubic_weights(size).to(trained) for size in grid)
        trained = trained.reshape(37, 37, -1)
        resampled = torch.einsum('yh,xw,hwc->yxc', rows, columns, trained)
        return torch.cat([own, resampled.reshape(1, -1, trained.shape[-1])], 1)

    def conv(self, x: Tensor, name: str, **options) -> Tensor:
        return F.conv2d(x, self(f'head.{name}.weight'), self.state.get(f'head.{name}.bias'), **options)

    def enlarged(self, x: Tensor, name: str) -> Tensor:
        """Transposed convolution with kernel = stride: every pixel becomes a square."""
        squares = torch.einsum('nchw,cdij->ndhiwj', x, self(f'head.{name}.weight'))
        n, channels, height, k, width, _ = squares.shape
        flat = squares.reshape(n, channels, height * k, width * k)
        return flat + self(f'head.{name}.bias')[:, None, None]

    def unit(self, x: Tensor, name: str) -> Tensor:
        return x + self.conv(
            self.conv(x.relu(), f'{name}.conv1', padding=1).relu(), f'{name}.conv2', padding=1
        )

    def bilinear(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=True)

    def dpt(self, levels: list[Tensor]) -> Tensor:
        maps = [self.conv(level, f'projects.{i}') for i, level in enumerate(levels)]
        maps = [
            self.enlarged(maps[0], 'resize_layers.0'),
            self.enlarged(maps[1], 'resize_layers.1'),
            maps[2],
            self.conv(maps[3], 'resize_layers.3', stride=2, padding=1),
        ]
        maps = [self.conv(x, f'scratch.layer{i}_rn', padding=1) for i, x in enumerate(maps, 1)]
        x = maps[3]
        for i in (4, 3, 2, 1):
            name = f'scratch.refinenet{i}'
            if i < 4:
                x = x + self.unit(maps[i - 1], f'{name}.resConfUnit1')
            size = maps[i - 2].shape[2:] if i > 1 else [2 * side for side in x.shape[2:]]
            x = self.conv(self.bilinear(self.unit(x, f'{name}.resConfUnit2'), size), f'{name}.out_conv')
        return self.conv(self.conv(x, 'scratch.output_conv.0', padding=1).relu(), 'scratch.output_conv.2')


def cubic_weights(size: int, trained: int = 37) -> Tensor:
    """Weights (size, trained) of bicubic resampling (a = -3/4) by the factor (size + 0.1) / trained."""
    weights = torch.zeros(size, trained, dtype=torch.float64)
    for i in range(size):
        place = (i + 0.5) * trained / (size + 0.1) - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - j)
            near = (1.25 * x - 2.25) * x * x + 1
            far = -0.75 * (((x - 5) * x + 8) * x - 4)
            weights[i, min(max(j, 0), trained - 1)] += near if x <= 1 else far
    return weights


def random_state(spec: dict[str, tuple]) -> dict[str, Tensor]:
    """Float64 values for which every part of the network has an effect on the output."""
    state = {}
    for key, shape in spec.items():
        noise = torch.randn(shape, dtype=torch.float64)
        if key.endswith(('cls_token', 'pos_embed')):
            state[key] = noise
        elif len(shape) > 1:
            state[key] = noise / math.sqrt(math.prod(shape[1:]))
        else:
            state[key] = 0.3 * noise + (0 if key.endswith('bias') else 1)
    return state


@pytest.mark.parametrize('swiglu', [False, True])
@pytest.mark.parametrize('size', [(42, 70), (28, 98), (14, 14)])
def test_values_and_gradients_equal_a_plain_derivation(size, swiglu):
    sizes = dict(TINY, swiglu=swiglu)
    state = random_state(unimatch_v2_spec(sizes))
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    for value in state.values():
        value.requires_grad_()
    expected = PlainNetwork(state).logits(image)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    (expected * weights).sum().backward()
    unused = {key for key, value in state.items() if value.grad is None}
    assert unused == {'backbone.mask_token', *(key for key in state if key.startswith(UNUSED))}

    model = MODELS.build(unimatch_v2_segmentor(sizes)).double().train()
    model.load_state_dict(convert_unimatch_v2({key: v.detach() for key, v in state.items()})[0])
    metas = [dict(img_shape=size)] * 2
    logits = model.encode_decode(image, metas)
    (logits * weights).sum().backward()

    assert logits.shape == (2, HEAD['classes'], *size)
    assert_close_to_largest(logits, expected, 1e-12, 'logits')
    gradients, _ = convert_unimatch_v2(
        {key: torch.zeros_like(value) if value.grad is None else value.grad for key, value in state.items()}
    )
    own = dict(model.named_parameters())
    assert set(own) == set(gradients) - {'backbone.mask_token'}
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, parameter in own.items():
        # relative to the largest gradient: the bias of the attention keys has only a rounding error
        assert (parameter.grad - gradients[name]).abs().max() <= 1e-12 * largest, name


@pytest.mark.parametrize(
    'size, millions, of_encoder', [('s', '24.8', '22.1'), ('b', '97.5', '86.6'), ('l', '335.6', '304.4')]
)
def test_number_of_parameters(size, millions, of_encoder):
    """The official logs also count a residual unit that is never used; the head here does not have it."""
    with torch.device('meta'):
        model = MODELS.build(base(size))
    counts = {key: value.numel() for key, value in model.state_dict().items()}
    head = model.decode_head
    unused = 2 * (9 * head.channels + 1) * head.channels
    assert f'{(sum(counts.values()) + unused) / 1e6:.1f}' == millions
    assert f'{sum(n for key, n in counts.items() if key.startswith("backbone.")) / 1e6:.1f}' == of_encoder
    assert head.align_corners and model.test_cfg == dict(mode='whole', size_multiple=14)


@pytest.mark.parametrize('size', ['s', 'b', 'l'])
def test_base_configs_name_the_official_weights_of_their_size(size):
    config = Config.fromfile(MODEL_BASES / f'dpt_dinov2-{size}14.py').model
    name = f'dinov2_vit{size}14'
    assert config.backbone.init_cfg == dict(
        type='Pretrained',
        checkpoint=f'https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth',
    )
    assert config.data_preprocessor.bgr_to_rgb


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('method', [None, 'allspark_mmseg.SelfTraining'])
def test_learning_rates(frozen, method):
    config = unimatch_v2_segmentor()
    config['backbone']['frozen'] = frozen
    model = MODELS.build(dict(type=method, segmentor=config) if method else config)
    groups = build_optim_wrapper(model, copy.deepcopy(OPTIM_WRAPPER)).optimizer.param_groups
    group_of = {parameter: group for group in groups for parameter in group['params']}
    prefix = 'student.' if method else ''
    seen = set()
    for name, parameter in model.named_parameters():
        of_backbone = name.startswith(f'{prefix}backbone.')
        assert of_backbone or name.startswith(f'{prefix}decode_head.')
        seen.add(of_backbone)
        if of_backbone and frozen:
            assert parameter not in group_of, name
            continue
        group = group_of.pop(parameter)
        assert group['lr'] == (5e-6 if of_backbone else 2e-4), name
        assert group['weight_decay'] == 0.01 and group['betas'] == (0.9, 0.999), name
    assert not group_of and seen == {True, False}
