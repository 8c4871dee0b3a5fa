"""UniMatch V2: the contract of every method, its formula and its complementary dropout."""

import math

import pytest
import torch
from torch import nn

from allspark_mmseg.methods.unimatch_v2 import complementary_dropout

from ..helpers.fixmatch_contract import UNIMATCH_VIEWS, FixMatchContract
from ..helpers.recorder import CallRecorder


class TestUniMatchV2(FixMatchContract):
    method = 'allspark_mmseg.UniMatchV2'
    views = UNIMATCH_VIEWS
    hyper_parameters = FixMatchContract.hyper_parameters | dict(
        no_dropout_ratio=0.0, teacher=dict(momentum=0.5, warm_up=False)
    )
    strong_views = ('strong_1', 'strong_2')
    labels_mix_source_first = False

    def build_unmixed(self, **overrides) -> nn.Module:
        return super().build_unmixed(no_dropout_ratio=1.0, **overrides)

    def weak_logits(self, head, teacher_head):
        return teacher_head.outputs[0]

    def test_default_weights_are_those_of_the_paper(self):
        model = self.build()
        assert (model.labeled_weight, model.strong_weight) == (0.5, 0.25)
        assert model.no_dropout_ratio == 0.5
        assert model.teacher.momentum == 0.004 and model.teacher.warm_up

    def test_labeled_and_strong_images_go_with_other_teacher(self):
        model = self.build_unmixed()
        inputs, data_samples = self.batch(1, 2)
        backbone, head = CallRecorder(model.student.backbone), CallRecorder(model.decode_head)
        labels = CallRecorder(model.teacher.module.backbone)
        model.loss(inputs, data_samples)
        for given, expected in zip(
            backbone.inputs,
            (inputs['labeled'], torch.cat([inputs['strong_1'], inputs['strong_2']])),
            strict=True,
        ):
            assert torch.equal(given, expected)
        assert [len(answer) for answer in head.outputs] == [1, 4]
        assert len(labels.inputs) == 1 and torch.equal(labels.inputs[0], inputs['weak'])

    def test_only_channels_of_strong_images_are_dropped(self):
        model = self.build(no_dropout_ratio=0.0)
        backbone, head = CallRecorder(model.student.backbone), CallRecorder(model.decode_head)
        model.loss(*self.batch(1, 2))
        assert all(torch.equal(*pair) for pair in zip(backbone.outputs[0], head.inputs[0], strict=True))
        for plain, given in zip(backbone.outputs[1], head.inputs[1], strict=True):
            ratio = given.flatten(2).abs().sum(2) / plain.flatten(2).abs().sum(2)
            assert torch.equal((ratio[:2] + ratio[2:]).round(decimals=4), torch.full_like(ratio[:2], 2))
            assert sorted(ratio.round(decimals=4).unique().tolist()) == [0, 2]

    def test_a_share_out_of_range_is_refused(self):
        for share in (-0.1, 1.5):
            with pytest.raises(ValueError, match=f'UniMatchV2: no_dropout_ratio is {share}'):
                self.build(no_dropout_ratio=share)


def masks_of(widths: list[int], pairs: int, no_dropout_ratio: float) -> list[torch.Tensor]:
    """What ones become: (pairs, C) of the first images and of the second ones, level by level."""
    dropped = complementary_dropout(
        [torch.ones(2 * pairs, width, 2, 3) for width in widths], no_dropout_ratio
    )
    assert all(level.eq(level[:, :, :1, :1]).all() for level in dropped), 'positions differ'
    return [level[:, :, 0, 0] for level in dropped]


@pytest.mark.parametrize('pairs', [1, 2, 3, 8])
@pytest.mark.parametrize('no_dropout_ratio', [0.0, 0.5, 1.0])
def test_masks_of_a_pair_complement_each_other(pairs, no_dropout_ratio):
    for mask in masks_of([16, 24, 16], pairs, no_dropout_ratio):
        first, second = mask.chunk(2)
        assert torch.equal(first + second, torch.full_like(first, 2))
        whole = first.eq(1).all(1)
        assert whole.sum() == math.floor(pairs * no_dropout_ratio)
        assert set(first[~whole].unique().tolist()) <= {0.0, 2.0}
        assert torch.equal(second.eq(1).all(1), whole)


def test_levels_of_a_width_share_the_draw_and_others_do_not():
    same_width, other, again = masks_of([64, 32, 64], 4, 0.5)
    assert torch.equal(same_width, again)
    assert not torch.equal(same_width[:, :32], other)
    # but the same pairs are left alone
    assert torch.equal(same_width.eq(1).all(1), other.eq(1).all(1))


def test_draws_are_fair_and_differ():
    masks = torch.stack([masks_of([32], 6, 0.5)[0] for _ in range(100)])
    touched = ~masks.eq(1).all(2)
    assert touched[:, :6].float().mean(0).tolist() == pytest.approx([0.5] * 6, abs=0.2)
    values = masks[:, :6][touched[:, :6]]
    assert values.eq(2).float().mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(values.numel()))
    assert values.eq(2).float().mean(0).tolist() == pytest.approx([0.5] * 32, abs=0.15)
    assert len(values.unique(dim=0)) > 290, 'pairs share a draw'


def test_gradients_flow_through_what_is_kept():
    features = [torch.randn(4, 8, 3, 3, requires_grad=True).half().float()]
    features[0].retain_grad()
    (dropped,) = complementary_dropout(features, 0.5)
    dropped.sum().backward()
    factor = features[0].grad
    torch.testing.assert_close(dropped, features[0] * factor)
    assert {0.0, 1.0, 2.0} == set(factor.unique().tolist())
    (half,) = complementary_dropout([torch.randn(4, 8, 3, 3).bfloat16()], 0.0)
    assert half.dtype == torch.bfloat16
