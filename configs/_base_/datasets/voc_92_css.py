# Pascal VOC as CSS has it: crops of 512, labeled images resized by 0.5 to 1.5, unlabeled ones as they are (the model
# rescales and flips them), weaker colors than UniMatch's. 92 labels; for 4 GPUs of 8 + 8 images.
_base_ = './voc_1over16.py'

crop_size = (512, 512)
load_labeled = [
    _base_.load_image,
    dict(type='LoadAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(0.5, 1.5)),
]
load_unlabeled = [
    _base_.load_image,
    dict(type='allspark_mmseg.LoadEmptyAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(1.0, 1.0), flip_prob=0),
]
colored = [*_base_.css_color, _base_.pack]

labeled_dataset = dict(
    _base_.labeled_dataset,
    ann_file=f'{_base_.splits}/92/labeled.txt',
    pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=colored)],
)
unlabeled_dataset = dict(
    _base_.unlabeled_dataset,
    ann_file=f'{_base_.splits}/92/unlabeled.txt',
    pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', strong_1=colored, weak=[_base_.pack])],
)
train_dataloader = dict(
    batch_size=16,
    # an epoch is 1000 steps, since the training is counted in steps
    sampler=dict(labeled=8, unlabeled=8, round_up=False, epoch_length=1000),
    dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]),
)
