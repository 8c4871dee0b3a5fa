# The network of CSS: ResNet-101 at output stride 8, and DeepLabv3+ with a branch for representations.
norm_cfg = dict(type='SyncBN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=101,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'
        ),
    ),
    decode_head=dict(
        type='allspark_mmseg.RepresentationHead',
        in_channels=(256, 2048),
        in_index=(0, 3),
        channels=256,
        c1_channels=48,
        dilations=(1, 12, 24, 36),
        representation_channels=256,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
