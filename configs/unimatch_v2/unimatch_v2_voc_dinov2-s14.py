# UniMatch V2 on Pascal VOC, 92 labels, the original 1/16, DINOv2-S: 79.03 mIoU in the released logs.
_base_ = './unimatch_v2_voc_dinov2-b14.py'

_weights = 'https://dl.fbaipublicfiles.com/dinov2'
model = dict(
    segmentor=dict(
        backbone=dict(
            arch='small', init_cfg=dict(checkpoint=f'{_weights}/dinov2_vits14/dinov2_vits14_pretrain.pth')
        ),
        decode_head=dict(
            in_channels=[384, 384, 384, 384], channels=64, post_process_channels=[48, 96, 192, 384]
        ),
    )
)
