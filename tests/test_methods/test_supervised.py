"""The losses on labeled images equal those of MMSegmentation."""

import pytest
import torch
from mmseg.models.utils import resize

from allspark_mmseg.methods.supervised import auxiliary_losses, head_losses

from ..helpers.tiny_models import CLASSES, CROP, build_model, samples, tiny_head, tiny_segmentor

PLAIN = dict(type='CrossEntropyLoss', avg_non_ignore=True)
LOSSES = {
    'over the valid pixels': PLAIN,
    'over all pixels': dict(type='CrossEntropyLoss', avg_non_ignore=False),
    'several, two of one name': [PLAIN, dict(PLAIN, loss_weight=0.3), dict(type='DiceLoss')],
    'class weights': dict(type='allspark_mmseg.CrossEntropyLoss', class_weight=[1.0, 2.0, 0.5, 3.0]),
    'hard pixels': dict(type='allspark_mmseg.OHEMCrossEntropyLoss', min_kept=100),
}


def head_with(**overrides):
    return build_model(tiny_segmentor(decode_head=tiny_head() | overrides)).decode_head


@pytest.mark.parametrize('ignored', [False, True])
@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_head_losses_are_those_of_mmsegmentation(name, ignored, dtype):
    head = head_with(loss_decode=LOSSES[name])
    logits = torch.randn(2, CLASSES, 17, 17, dtype=dtype)
    labeled = samples(2, ignored=ignored)
    found, expected = head_losses(head, logits, labeled), head.loss_by_feat(logits, labeled)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if 'loss' in key:
            assert torch.equal(found[key], value), key
    torch.testing.assert_close(found['acc_seg'], expected['acc_seg'])


@pytest.mark.parametrize('name', ['over the valid pixels', 'class weights'])
def test_half_precision_does_not_overflow(name):
    """Above 65 504, a number of pixels is infinite in float16."""
    head = head_with(loss_decode=LOSSES[name])
    logits, labeled = torch.randn(2, CLASSES, 33, 33).half(), samples(2, size=(200, 200))
    found, expected = head_losses(head, logits, labeled), head_losses(head, logits.float(), labeled)
    assert found['loss_ce'] > 0 and torch.equal(found['loss_ce'], expected['loss_ce'])


def test_the_pixel_sampler_of_a_head_is_used():
    sampler = dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100)
    head = head_with(loss_decode=PLAIN, sampler=sampler)
    logits, labeled = torch.randn(2, CLASSES, 17, 17), samples(2)
    found, expected = head_losses(head, logits, labeled), head.loss_by_feat(logits, labeled)
    assert torch.equal(found['loss_ce'], expected['loss_ce'])
    assert not torch.equal(
        found['loss_ce'], head_losses(head_with(loss_decode=PLAIN), logits, labeled)['loss_ce']
    )


def test_a_head_with_losses_of_its_own_keeps_them():
    head = head_with(loss_decode=PLAIN)

    class Own(type(head)):
        def loss_by_feat(self, logits, data_samples):
            return {'loss_own': resize(logits, CROP).mean()}

    head.__class__ = Own
    assert list(head_losses(head, torch.randn(2, CLASSES, 17, 17), samples(2))) == ['loss_own']


@pytest.mark.parametrize('several', [False, True])
def test_auxiliary_losses_are_those_of_mmsegmentation(several):
    head = dict(
        type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1, num_classes=CLASSES,
        norm_cfg=dict(type='BN'), dropout_ratio=0.0, loss_decode=dict(PLAIN, loss_weight=0.4),
    )  # fmt: skip
    segmentor = build_model(tiny_segmentor(auxiliary_head=[head, head] if several else head)).eval()
    features, labeled = segmentor.extract_feat(torch.randn(2, 3, *CROP)), samples(2)
    found = auxiliary_losses(segmentor, features, labeled)
    expected = segmentor._auxiliary_head_forward_train(features, labeled)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0 if 'loss' in key else 1e-5, atol=0)
