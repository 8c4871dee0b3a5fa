# Pascal VOC 2012 with the augmented masks (10 582 training images), 1/16 of them labeled (662).
_base_ = ['../color.py', '../tta.py']

data_root = 'data/VOC2012'
crop_size = (513, 513)
metainfo = dict(
    classes=('background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
             'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
             'tvmonitor'),
    palette=[[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128],
             [128, 128, 128], [64, 0, 0], [192, 0, 0], [64, 128, 0], [192, 128, 0], [64, 0, 128], [192, 0, 128],
             [64, 128, 128], [192, 128, 128], [0, 64, 0], [128, 64, 0], [0, 192, 0], [128, 192, 0], [0, 64, 128]],
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
        split='data/splits/voc/1_16',
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
        ann_file='data/splits/voc/val.txt',
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
