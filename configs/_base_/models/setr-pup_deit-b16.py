# S4Former's SETR-PUP on DeiT-B/16 at 512 x 512, with four auxiliary heads. The losses are averaged over all pixels,
# including ignored ones.
# python tools/model_converters/deit2mmseg.py deit-base_pt-16xb64_in1k_20220216-db63c16c.pth pretrained/deit_base_mmseg.pth
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
_head = dict(
    type='SETRUPHead',
    in_channels=768,
    channels=256,
    num_classes=21,
    dropout_ratio=0,
    norm_layer=dict(type='LN', eps=1e-6),
    norm_cfg=dict(type='SyncBN'),
    kernel_size=3,
    align_corners=False,
)
_auxiliary = dict(_head, num_convs=2, up_scale=4, loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='allspark_mmseg.VisionTransformer',
        img_size=(512, 512),
        patch_size=16,
        patch_bias=True,
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        mlp_ratio=4,
        out_indices=(4, 7, 9, 11),
        norm_cfg=dict(type='LN', eps=1e-6),
        interpolate_mode='bilinear',
        init_cfg=dict(type='Pretrained', checkpoint='pretrained/deit_base_mmseg.pth'),
    ),
    decode_head=dict(
        _head, in_index=3, num_convs=4, up_scale=2, loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0)
    ),
    auxiliary_head=[dict(_auxiliary, in_index=index) for index in range(4)],
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
