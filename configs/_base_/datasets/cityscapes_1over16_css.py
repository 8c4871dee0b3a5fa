# Cityscapes as CSS has it: crops of 769, labeled images not resized (as released), weaker colors than UniMatch's; the
# model rescales and flips unlabeled ones. 186 labels; for 4 GPUs of 4 + 4 images.
_base_ = './cityscapes_1over16.py'

crop_size = (769, 769)
load_labeled = [
    _base_.load_image,
    dict(type='LoadAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(1.0, 1.0)),
]
load_unlabeled = [
    _base_.load_image,
    dict(type='allspark_mmseg.LoadEmptyAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(1.0, 1.0), flip_prob=0),
]
colored = [*_base_.css_color, _base_.pack]

labeled_dataset = dict(
    _base_.labeled_dataset, pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=colored)]
)
unlabeled_dataset = dict(
    _base_.unlabeled_dataset,
    pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', strong_1=colored, weak=[_base_.pack])],
)
train_dataloader = dict(
    batch_size=8,
    # an epoch is 1000 steps, since the training is counted in steps
    sampler=dict(labeled=4, unlabeled=4, round_up=False, epoch_length=1000),
    dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]),
)
