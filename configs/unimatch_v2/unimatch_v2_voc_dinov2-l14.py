# UniMatch V2 on Pascal VOC, DINOv2-L: 4 GPUs, 4 labeled + 4 unlabeled images each, 60 epochs.
# Split 92: 92 labeled images. Other rows: python tools/print_row.py unimatch_v2
# tools/dist_train.sh configs/unimatch_v2/unimatch_v2_voc_dinov2-l14.py 4
_base_ = './unimatch_v2_voc_dinov2-b14.py'

_weights = 'https://dl.fbaipublicfiles.com/dinov2'
model = dict(
    segmentor=dict(
        backbone=dict(
            arch='large', init_cfg=dict(checkpoint=f'{_weights}/dinov2_vitl14/dinov2_vitl14_pretrain.pth')
        ),
        decode_head=dict(
            in_channels=[1024, 1024, 1024, 1024], channels=256, post_process_channels=[256, 512, 1024, 1024]
        ),
    )
)
