"""Which students a method accepts."""

import pytest
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from allspark_mmseg.methods import SemiSegmentor

from ..helpers.tiny_models import (
    CLASSES,
    batch,
    behind_bottleneck,
    build_model,
    losses_in,
    tiny_head,
    tiny_segmentor,
)


def self_training(segmentor: dict | None = None, **overrides) -> nn.Module:
    return build_model(
        dict(type='allspark_mmseg.SelfTraining', segmentor=segmentor or tiny_segmentor(), **overrides)
    )


@MMSEG_MODELS.register_module()
class MaskClassification(nn.Module):
    """As Mask2Former's: its loss is not of logits."""

    num_classes = out_channels = CLASSES
    align_corners = False

    def forward(self, features):
        raise NotImplementedError

    def loss(self, features, batch_data_samples, train_cfg):
        raise NotImplementedError


@MMSEG_MODELS.register_module()
class MaskClassificationWithLossByFeat(MaskClassification):
    """As MMDetection's heads, below MMSegmentation's Mask2Former; it needs the samples, too."""

    def forward(self, features, batch_data_samples):
        raise NotImplementedError

    def loss_by_feat(self, scores, masks, instances, metas):
        raise NotImplementedError


def cascade() -> dict:
    fcn = dict(tiny_head(), type='FCNHead', in_channels=64, in_index=3, num_convs=1)
    ocr = dict(fcn, type='OCRHead', ocr_channels=8)
    del ocr['num_convs']
    return tiny_segmentor(type='CascadeEncoderDecoder', num_stages=2, decode_head=[fcn, ocr])


def one_feature_head(name: str, **overrides) -> dict:
    return dict(tiny_head(), type=name, in_channels=64, in_index=3, **overrides)


REFUSED = {
    'cascade': cascade,
    'masks': lambda: tiny_segmentor(decode_head=dict(type='MaskClassification')),
    'masks_of_mmdet': lambda: tiny_segmentor(decode_head=dict(type='MaskClassificationWithLossByFeat')),
    'dual attention': lambda: tiny_segmentor(decode_head=one_feature_head('DAHead', pam_channels=8)),
    'encoding': lambda: tiny_segmentor(
        decode_head=one_feature_head('EncHead', num_codes=4) | dict(in_channels=[40, 64], in_index=[2, 3])
    ),
    'behind a bottleneck': lambda: behind_bottleneck(
        tiny_segmentor(decode_head=one_feature_head('DAHead', pam_channels=8))
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_heads_that_do_not_make_logits_from_features_are_refused(name):
    with pytest.raises(ValueError, match=r'SelfTraining: segmentor is a \w+ whose decode_head is') as error:
        self_training(REFUSED[name]())
    assert 'expected an EncoderDecoder with one decode head that makes logits' in str(error.value)


def test_a_head_of_one_channel_is_refused():
    """Its softmax would be 1 and its label 0 everywhere, so that its loss would always be 0."""
    head = one_feature_head('FCNHead', num_convs=1) | dict(
        num_classes=2,
        out_channels=1,
        threshold=0.3,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    for segmentor in (tiny_segmentor(decode_head=head), behind_bottleneck(tiny_segmentor(decode_head=head))):
        with pytest.raises(
            ValueError, match=r'SelfTraining: .*out_channels=1 for num_classes=2, expected a chan'
        ):
            self_training(segmentor)
    head |= dict(num_classes=1)
    with pytest.raises(ValueError, match=r'num_classes=1, expected at least 2'):
        self_training(tiny_segmentor(decode_head=head))


@pytest.mark.parametrize(
    'head',
    [
        lambda: one_feature_head('FCNHead', num_convs=1),
        lambda: one_feature_head('EMAHead', ema_channels=16, num_bases=4, num_stages=1) | dict(channels=16),
        lambda: one_feature_head('PSPHead'),
        lambda: dict(tiny_head(), type='UPerHead', in_index=[0, 1, 2, 3]),
        lambda: dict(tiny_head(), type='SegformerHead', in_index=[0, 1, 2, 3]),
    ],
)
def test_other_heads_of_mmsegmentation_can_be_trained(head):
    model = self_training(tiny_segmentor(decode_head=head()), teacher=dict()).train()
    assert isinstance(model, SemiSegmentor)
    losses_in(model.loss(*batch())).backward()
