# CamVid, 11 classes, 480 x 360: every 8th of the sorted training names is labeled (46), the others are not (321).
_base_ = ['../color.py', '../tta.py']

data_root = 'data/camvid'
crop_size = (193, 193)
metainfo = dict(
    classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian',
             'bicyclist'),
    palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
             [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]],
)  # fmt: skip

geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *geometry]
# LoadEmptyAnnotations marks the padding
load_unlabeled = [dict(type='LoadImageFromFile'), dict(type='allspark_mmseg.LoadEmptyAnnotations'), *geometry]
pack = dict(type='PackSegInputs')
# 480 x 360 plus one. The padding of EfficientNet-Lite depends on the parity of a size, and the crop size is odd.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(481, 361), keep_ratio=False),
    dict(type='LoadAnnotations'),
    pack,
]
tta_pipeline = [
    *test_pipeline[:2],
    dict(type='TestTimeAug', transforms=[*_base_.tta_views, [dict(type='LoadAnnotations')], [pack]]),
]

# for 2 processes: 4 labeled and 4 unlabeled images per step
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=2, unlabeled=2),
    dataset=dict(
        type='allspark_mmseg.SemiDataset',
        data_root=data_root,
        split='{{ fileDirname }}/../splits/camvid/1over8',
        metainfo=metainfo,
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[pack])],
        ),
        unlabeled=dict(
            pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', weak=[pack])],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='allspark_mmseg.ImageListDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
