# Cityscapes: OHEM loss, and windows that are clipped at the border.
_base_ = './deeplabv3plus_r101-d16.py'

model = dict(
    type='allspark_mmseg.ExtendedEncoderDecoder',
    decode_head=dict(
        num_classes=19,
        loss_decode=dict(
            _delete_=True, type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000
        ),
    ),
    test_cfg=dict(mode='slide_probs_clipped', crop_size=(801, 801), stride=(534, 534)),
)
