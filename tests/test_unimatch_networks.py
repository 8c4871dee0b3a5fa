"""UniMatch's CNNs as the configs build them, compared with golden vectors and with plain PyTorch."""

from typing import Any

import pytest
import torch
from mmseg.registry import MODELS

from allspark_mmseg.converters.unimatch import UniMatchNetwork, convert_unimatch

from .helpers.deeplab_configs import BASES, config_of
from .helpers.golden import recorded_network
from .helpers.reference_deeplab import ReferenceDeepLab, randomize_norms


def build(name: str, num_classes: int) -> Any:
    return MODELS.build(config_of(name, num_classes).model)


def full_logits(model: Any, image: torch.Tensor) -> torch.Tensor:
    metas = [dict(img_shape=image.shape[2:], ori_shape=image.shape[2:])] * len(image)
    return model.encode_decode(image, metas)


@pytest.mark.parametrize('name', BASES)
@torch.no_grad()
def test_network_of_real_size_gives_the_released_logits(golden, name):
    vectors = golden(f'unimatch_{name}_forward')
    state, image = recorded_network(vectors)
    model = build(name, num_classes=vectors['logits_mean'].shape[1]).eval()
    model.load_state_dict(convert_unimatch(state), strict=True)

    logits = full_logits(model, image)
    torch.testing.assert_close(logits[:, :, ::4, ::4], vectors['logits_every_4th'], rtol=0, atol=5e-6)
    torch.testing.assert_close(logits.mean((2, 3)), vectors['logits_mean'], rtol=0, atol=5e-6)
    torch.testing.assert_close(logits.std((2, 3)), vectors['logits_std'], rtol=0, atol=5e-6)
    assert torch.equal(logits.argmax(1), vectors['argmax'].long())


def assert_equal_up_to_rounding(actual: Any, expected: Any, what: str) -> None:
    error = (actual - expected).abs().max()
    assert error <= 1e-9 + 1e-7 * expected.abs().max(), f'{what}: {error:.2e}'


@pytest.mark.parametrize('name', ['resnet50', 'xception'])
def test_training_step_equals_plain_pytorch(name):
    """In float64, logits, all gradients and the statistics of the batch norms agree."""
    plain = randomize_norms(ReferenceDeepLab(name, 5)).double().train()
    model = build(name, 5).double().train()
    model.load_state_dict(convert_unimatch(plain.state_dict()), strict=True)
    image = torch.randn(2, 3, 33, 25, dtype=torch.float64)
    results = []
    for forward in (plain, lambda x: full_logits(model, x)):
        x = image.clone().requires_grad_()
        logits = forward(x)
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=x.dtype).view_as(logits)).sum().backward()
        results.append((logits.detach(), x.grad))
    for actual, expected in zip(*results, strict=True):
        assert_equal_up_to_rounding(actual, expected, 'logits and gradient of the image')

    converted_keys = UniMatchNetwork.from_state_dict(plain.state_dict()).keys()
    parameters = dict(model.named_parameters())
    for key, parameter in plain.named_parameters():
        assert_equal_up_to_rounding(
            parameters[converted_keys[key][0]].grad, parameter.grad, f'gradient of {key}'
        )
    state = model.state_dict()
    for key, value in plain.named_buffers():
        assert_equal_up_to_rounding(state[converted_keys[key][0]], value, key)


@pytest.mark.parametrize(
    'name, num_classes, millions',
    [('resnet101', 21, 59.5), ('resnet101', 19, 59.5), ('resnet50', 21, 40.5), ('xception', 81, 54.7)],
)
def test_number_of_parameters(name, num_classes, millions):
    """The counts are those of UniMatch's published logs."""
    with torch.device('meta'):
        model = build(name, num_classes)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize('name', ['resnet50', 'xception'])
def test_feature_sizes(name):
    """The strides are 4 and 16; sizes are rounded up."""
    with torch.device('meta'):
        model = build(name, 21).eval()
    for side, c1, c4 in ((321, 81, 21), (513, 129, 33), (801, 201, 51), (500, 125, 32)):
        image = torch.empty(1, 3, side, side, device='meta')
        features = model.extract_feat(image)
        low_level, deep = (features[i] for i in model.decode_head.in_index)
        assert (low_level.shape, deep.shape) == ((1, 256, c1, c1), (1, 2048, c4, c4)), side
        assert model.decode_head(features).shape == (1, 21, c1, c1), side


def test_only_the_last_resnet_stage_is_dilated():
    with torch.device('meta'):
        backbone = build('resnet50', 21).backbone
    for stage in (1, 2, 3, 4):
        blocks = getattr(backbone, f'layer{stage}')
        assert [block.conv2.stride[0] for block in blocks][1:] == [1] * (len(blocks) - 1)
        assert blocks[0].conv2.stride[0] == (2 if stage in (2, 3) else 1)
        dilations = [block.conv2.dilation[0] for block in blocks]
        assert dilations == ([1, 2, 2] if stage == 4 else [1] * len(blocks))


@pytest.mark.parametrize('name', BASES)
def test_batch_norms_have_the_released_momentum(name):
    with torch.device('meta'):
        model = build(name, 21)
    momenta = {
        part: {module.momentum for module in getattr(model, part).modules() if hasattr(module, 'running_var')}
        for part in ('backbone', 'decode_head')
    }
    assert momenta == dict(backbone={0.0003 if name == 'xception' else 0.1}, decode_head={0.1})
