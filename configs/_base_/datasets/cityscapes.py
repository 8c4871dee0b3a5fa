# Cityscapes, 2048 x 1024: 2975 training images, 1/16 of them labeled (186); masks are labelTrainIds.
_base_ = ['../color.py', '../tta.py']

data_root = 'data/cityscapes'
crop_size = (801, 801)
metainfo = dict(
    classes=('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
             'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
             'motorcycle', 'bicycle'),
    palette=[[128, 64, 128], [244, 35, 232], [70, 70, 70], [102, 102, 156], [190, 153, 153],
             [153, 153, 153], [250, 170, 30], [220, 220, 0], [107, 142, 35], [152, 251, 152],
             [70, 130, 180], [220, 20, 60], [255, 0, 0], [0, 0, 142], [0, 0, 70], [0, 60, 100],
             [0, 80, 100], [0, 0, 230], [119, 11, 32]],
)  # fmt: skip

geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
# ignore the EXIF orientation: the masks ignore it, too
load_image = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
load_labeled = [load_image, dict(type='LoadAnnotations'), *geometry]
# LoadEmptyAnnotations marks the padding
load_unlabeled = [load_image, dict(type='allspark_mmseg.LoadEmptyAnnotations'), *geometry]
pack = dict(type='PackSegInputs')
test_pipeline = [load_image, dict(type='LoadAnnotations'), pack]
tta_pipeline = [
    load_image,
    dict(type='TestTimeAug', transforms=[*_base_.tta_views, [dict(type='LoadAnnotations')], [pack]]),
]

# for 4 GPUs: 8 labeled and 8 unlabeled images per step; round_up gives the published iterations
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=2, unlabeled=2, round_up=True),
    dataset=dict(
        type='allspark_mmseg.SemiDataset',
        data_root=data_root,
        split='data/splits/cityscapes/1_16',
        metainfo=metainfo,
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[*_base_.color, pack])],
        ),
        unlabeled=dict(
            pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', weak=[pack])],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='allspark_mmseg.ImageListDataset',
        data_root=data_root,
        ann_file='data/splits/cityscapes/val.txt',
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
