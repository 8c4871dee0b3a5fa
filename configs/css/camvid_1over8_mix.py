# CSS with mixed labels on CamVid 1/8: tools/dist_train.sh configs/css/camvid_1over8_mix.py 2
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/camvid_1over8.py',
    '../_base_/schedules/adamw_poly_10e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head = dict(
    type='allspark_mmseg.RepresentationHead',
    in_channels=(24, 320),
    in_index=(0, 3),
    channels=64,
    c1_channels=24,
    dilations=(1, 2, 3),  # for a feature map of 7 x 7
    representation_channels=64,
    num_classes=11,
    norm_cfg=dict(type='GN', num_groups=8),  # two images are too few for the pooled branch's batch norm
    align_corners=True,
    loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
)
model = dict(
    _delete_=True,
    type='allspark_mmseg.CSSMix',
    segmentor=segmentor,
    contrast_ramp_down=800,
    ignore_padding=True,
    predict_on='teacher',
)

# the model itself rescales and flips the unlabeled images
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            pipeline=[
                *_base_.load_unlabeled[:-1],
                dict(_base_.load_unlabeled[-1], ratio_range=(1.0, 1.0), flip_prob=0),
                _base_.one_strong_view,
            ]
        )
    )
)
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
auto_scale_lr = dict(enable=False, base_batch_size=8)
