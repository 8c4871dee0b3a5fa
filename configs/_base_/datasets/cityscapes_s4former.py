# Cityscapes for S4Former: images resized by 0.5 to 2, crops of 768, MMSegmentation's own augmentation, the same color
# distortion for all views. 186 labeled images.
_base_ = './cityscapes.py'

crop_size = (768, 768)
resize = dict(type='RandomResize', scale=(2049, 1025), ratio_range=(0.5, 2.0), keep_ratio=True)
flip = dict(type='RandomFlip', prob=0.5)
load_labeled = [
    _base_.load_image,
    dict(type='LoadAnnotations'),
    resize,
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    flip,
]
load_unlabeled = [
    _base_.load_image,
    dict(type='allspark_mmseg.LoadEmptyAnnotations'),
    resize,
    dict(type='RandomCrop', crop_size=crop_size),
    flip,
]
distorted = [dict(type='PhotoMetricDistortion'), _base_.pack]

# for 2 GPUs: 8 labeled and 8 unlabeled images per step
train_dataloader = dict(
    batch_size=8,
    # the training is counted in steps: an epoch has 1000
    sampler=dict(labeled=4, unlabeled=4, round_up=False, epoch_length=1000),
    dataset=dict(
        labeled=dict(pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=distorted)]),
        unlabeled=dict(
            pipeline=[
                *load_unlabeled,
                dict(type='allspark_mmseg.MultiView', strong_1=distorted, weak=distorted),
            ],
        ),
    ),
)
