_base_ = './dpt_dinov2-s14.py'

_weights = 'https://dl.fbaipublicfiles.com/dinov2'
model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(checkpoint=f'{_weights}/dinov2_vitb14/dinov2_vitb14_pretrain.pth'),
    ),
    decode_head=dict(
        in_channels=[768, 768, 768, 768], channels=128, post_process_channels=[96, 192, 384, 768]
    ),
)
