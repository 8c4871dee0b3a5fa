# EfficientNet-Lite0 with ImageNet weights from a pip package, and the all-MLP head. It is small enough for a CPU.
norm_cfg = dict(type='SyncBN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[127.0, 127.0, 127.0],
    std=[128.0, 128.0, 128.0],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='allspark_mmseg.EfficientNetLite0',
        norm_momentum=0.1,  # the 0.01 of ImageNet training is too slow for short runs
        init_cfg=dict(type='Pretrained', checkpoint='efficientnet_lite0://imagenet'),
    ),
    decode_head=dict(
        type='allspark_mmseg.AllMLPHead',
        in_channels=[24, 40, 112, 320],
        channels=128,
        num_classes=11,
        norm_cfg=norm_cfg,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
