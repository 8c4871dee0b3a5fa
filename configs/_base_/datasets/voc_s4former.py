# Pascal VOC for S4Former: MMSegmentation's own augmentation, short side 512 x (0.5 to 2), crops of 512, the same color
# distortion for all views. Test images have a short side of 512. 92 labeled images.
_base_ = './voc.py'

crop_size = (512, 512)
resize = dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True)
flip = dict(type='RandomFlip', prob=0.5)
load_labeled = [
    _base_.load_image,
    dict(type='LoadAnnotations'),
    resize,
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    flip,
]
# the release also balances the crops of unlabeled images by their true masks; we never read these masks
load_unlabeled = [
    _base_.load_image,
    dict(type='allspark_mmseg.LoadEmptyAnnotations'),
    resize,
    dict(type='RandomCrop', crop_size=crop_size),
    flip,
]
distorted = [dict(type='PhotoMetricDistortion'), _base_.pack]
test_pipeline = [
    _base_.load_image,
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    _base_.pack,
]
tta_pipeline = [
    *test_pipeline[:2],
    dict(type='TestTimeAug', transforms=[*_base_.tta_views, [dict(type='LoadAnnotations')], [_base_.pack]]),
]

# for 2 GPUs: 8 labeled and 8 unlabeled images per step
train_dataloader = dict(
    batch_size=8,
    # the training is counted in steps: an epoch has 1000
    sampler=dict(labeled=4, unlabeled=4, round_up=False, epoch_length=1000),
    dataset=dict(
        split='data/splits/voc/92',
        labeled=dict(pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=distorted)]),
        unlabeled=dict(
            pipeline=[
                *load_unlabeled,
                dict(type='allspark_mmseg.MultiView', strong_1=distorted, weak=distorted),
            ],
        ),
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
