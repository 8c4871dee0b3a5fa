# UniMatch V2 on Pascal VOC, 92 labels, the original 1/16, DINOv2-L: 86.44 mIoU in the released logs.
_base_ = './unimatch_v2_voc_dinov2-b14.py'

_weights = 'https://dl.fbaipublicfiles.com/dinov2'
model = dict(
    segmentor=dict(
        backbone=dict(
            arch='large', init_cfg=dict(checkpoint=f'{_weights}/dinov2_vitl14/dinov2_vitl14_pretrain.pth')
        ),
        decode_head=dict(
            in_channels=[1024, 1024, 1024, 1024], channels=256, post_process_channels=[256, 512, 1024, 1024]
        ),
    )
)
