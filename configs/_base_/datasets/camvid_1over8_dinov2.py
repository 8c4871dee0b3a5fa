# CamVid for DINOv2: camvid_1over8.py with crops of a multiple of 14; test images keep their size.
_base_ = './camvid_1over8.py'

crop_size = (196, 196)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *geometry]
load_unlabeled = [
    dict(type='LoadImageFromFile'),
    dict(type='allspark_mmseg.LoadEmptyAnnotations'),
    *geometry,
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), _base_.pack]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[*_base_.tta_views, [dict(type='LoadAnnotations')], [_base_.pack]]),
]

train_dataloader = dict(
    dataset=dict(
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
        ),
        unlabeled=dict(
            pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', weak=[_base_.pack])],
        ),
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
