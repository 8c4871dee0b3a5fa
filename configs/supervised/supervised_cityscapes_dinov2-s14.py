# Supervised on Cityscapes, 1/16 (186 labels), DINOv2-S: 77.15 mIoU in the released logs.
_base_ = './supervised_cityscapes_dinov2-b14.py'

_weights = 'https://dl.fbaipublicfiles.com/dinov2'
model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint=f'{_weights}/dinov2_vits14/dinov2_vits14_pretrain.pth')
    ),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=64, post_process_channels=[48, 96, 192, 384]),
)
