# SegFormer with the all-MLP head and the layer-norm epsilons of its released code.
norm_cfg = dict(type='SyncBN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
_weights = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='allspark_mmseg.MixVisionTransformer',
        embed_dims=32,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 5, 8],
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=f'{_weights}/mit_b0_20220624-7e0fe6dd.pth'),
    ),
    decode_head=dict(
        type='allspark_mmseg.AllMLPHead',
        in_channels=[32, 64, 160, 256],
        channels=256,
        num_classes=21,
        norm_cfg=norm_cfg,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
