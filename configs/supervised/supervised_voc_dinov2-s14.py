# Supervised training on Pascal VOC, DINOv2-S: 4 GPUs, 8 labeled images each, 5580 steps.
# Split 92: 92 labeled images. Other rows: python tools/print_row.py supervised
# The number of steps is the same for all splits, as released.
# tools/dist_train.sh configs/supervised/supervised_voc_dinov2-s14.py 4
_base_ = './supervised_voc_dinov2-b14.py'

_weights = 'https://dl.fbaipublicfiles.com/dinov2'
model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint=f'{_weights}/dinov2_vits14/dinov2_vits14_pretrain.pth')
    ),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=64, post_process_channels=[48, 96, 192, 384]),
)
