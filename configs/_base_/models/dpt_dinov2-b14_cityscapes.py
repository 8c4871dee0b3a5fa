# Cityscapes: OHEM loss, and windows that are shifted back at the border.
_base_ = './dpt_dinov2-b14.py'

model = dict(
    decode_head=dict(
        num_classes=19,
        loss_decode=dict(
            _delete_=True, type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000
        ),
    ),
    test_cfg=dict(_delete_=True, mode='slide_probs_shifted', crop_size=(798, 798), stride=(532, 532)),
)
