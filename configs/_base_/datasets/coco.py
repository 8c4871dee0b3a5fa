# COCO 2017 with 81 classes, drawn from the instances: 118 287 training images, 1/512 of them labeled (232).
_base_ = ['../color.py', '../tta.py']

data_root = 'data/coco'
crop_size = (513, 513)
metainfo = dict(
    classes=('background', 'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck',
             'boat', 'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat',
             'dog', 'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
             'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
             'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
             'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange',
             'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant',
             'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
             'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors',
             'teddy bear', 'hair drier', 'toothbrush'),
    # the color scheme of Pascal VOC: the bits of the class number
    palette=[[sum((i >> 3 * bit + c & 1) << 7 - bit for bit in range(3)) for c in range(3)] for i in range(81)],
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

# for 4 GPUs: 16 labeled and 16 unlabeled images per step; round_up gives the published iterations
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=4, unlabeled=4, round_up=True),
    dataset=dict(
        type='allspark_mmseg.SemiDataset',
        data_root=data_root,
        split='data/splits/coco/1_512',
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
        ann_file='data/splits/coco/val.txt',
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
