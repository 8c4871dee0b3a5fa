# allspark.py with MiT-B0, for a GPU with little memory.
_base_ = './allspark.py'

_weights = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer'
_backbone = dict(
    embed_dims=32,
    num_layers=[2, 2, 2, 2],
    init_cfg=dict(type='Pretrained', checkpoint=f'{_weights}/mit_b0_20220624-7e0fe6dd.pth'),
)
_decoder = dict(in_channels=[32, 64, 160, 256], channels=256)
model = dict(
    segmentor=dict(backbone=_backbone, decode_head=dict(bottleneck=dict(in_channels=256), decoder=_decoder))
)
