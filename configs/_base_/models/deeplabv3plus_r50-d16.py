# UniMatch's DeepLabv3+ at output stride 16. Its stem has 64, 64 and 128 channels, so open-mmlab://resnet50_v1c does
# not fit. Convert the ImageNet weights that UniMatch links to:
# python tools/model_converters/unimatch2mmseg.py resnet50.pth pretrained/resnet50_mmseg.pth
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
        depth=50,
        deep_stem=True,
        stem_channels=128,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        contract_dilation=True,
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='pretrained/resnet50_mmseg.pth'),
    ),
    decode_head=dict(
        type='allspark_mmseg.DeepLabV3PlusHead',
        in_channels=(256, 2048),
        in_index=(0, 3),
        channels=256,
        c1_channels=48,
        dilations=(1, 6, 12, 18),
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
