"""The all-MLP head against the order of operations in which its authors wrote it."""

import pytest
import torch
import torch.nn.functional as F

from allspark_mmseg.heads import AllMLPHead

from ..helpers.golden import assert_close_to_largest

WIDTHS, SIZES = [6, 8, 12, 16], [(17, 13), (9, 7), (5, 4), (3, 2)]


def build(norm_cfg: dict | None = dict(type='BN'), **overrides) -> AllMLPHead:  # noqa: B006
    arguments = dict(in_channels=WIDTHS, channels=10, num_classes=5, norm_cfg=norm_cfg, dropout_ratio=0.0)
    return AllMLPHead(**arguments | overrides).train()


def as_written(head: AllMLPHead, features: list[torch.Tensor]) -> torch.Tensor:
    """Project each stage, resize all to the first, concatenate from the deepest, fuse, classify."""
    maps = []
    for feature, projection in zip(features, head.projections, strict=True):
        projected = projection(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        maps.append(
            F.interpolate(projected, features[0].shape[2:], mode='bilinear', align_corners=head.align_corners)
        )
    return head.conv_seg(head.fuse(torch.cat(maps[::-1], dim=1)))


@pytest.mark.parametrize('overrides', [{}, dict(norm_cfg=None), dict(align_corners=True)])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_fusing_each_stage_at_its_own_size_changes_nothing(overrides, mode):
    head = getattr(build(**overrides), mode)()
    torch.nn.init.normal_(head.conv_seg.weight)
    features = [torch.randn(2, width, *size) for width, size in zip(WIDTHS, SIZES, strict=True)]
    results = []
    for function in (head, lambda inputs: as_written(head, inputs)):
        inputs = [feature.clone().requires_grad_() for feature in features]
        head.zero_grad()
        out = function(inputs)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in head.named_parameters()}
        results.append((out.detach(), [each.grad for each in inputs], gradients))
    (out, of_inputs, of_parameters), (expected, of_inputs_, of_parameters_) = results
    assert out.shape == (2, 5, *SIZES[0])
    assert_close_to_largest(out, expected, 1e-5)
    for actual, exact in zip(of_inputs, of_inputs_, strict=True):
        assert_close_to_largest(actual, exact, 1e-5)
    largest = max(gradient.abs().max() for gradient in of_parameters_.values())
    for name, exact in of_parameters_.items():
        # a bias before a batch norm in training has no gradient, only rounding
        assert (of_parameters[name] - exact).abs().max() <= 1e-5 * largest, name
