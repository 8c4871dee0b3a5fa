_base_ = './segformer_mit-b0.py'

_weights = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer'
model = dict(
    backbone=dict(
        embed_dims=64,
        num_layers=[3, 4, 18, 3],
        init_cfg=dict(type='Pretrained', checkpoint=f'{_weights}/mit_b3_20220624-13b1141c.pth'),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512], channels=768),
)
