# Cityscapes as S4Former's data set file has it: crops of 768 of images resized by 0.5 to 2, MMSegmentation's own
# augmentation, the same color distortion on all views. 186 labels; for 2 GPUs of 4 + 4 images.
_base_ = './cityscapes_1over16.py'

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

labeled_dataset = dict(
    _base_.labeled_dataset, pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=distorted)]
)
unlabeled_dataset = dict(
    _base_.unlabeled_dataset,
    pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', strong_1=distorted, weak=distorted)],
)
train_dataloader = dict(
    batch_size=8,
    # an epoch is 1000 steps, since the training is counted in steps
    sampler=dict(labeled=4, unlabeled=4, round_up=False, epoch_length=1000),
    dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]),
)
