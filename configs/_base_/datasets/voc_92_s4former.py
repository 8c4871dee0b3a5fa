# Pascal VOC as S4Former has it: MMSegmentation's own augmentation, short side 512 x (0.5 to 2), crops of 512, the
# same color distortion on all views; tested at short side 512. 92 labels; for 2 GPUs of 4 + 4 images.
_base_ = './voc_1over16.py'

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
# the release balances classes by the true masks of unlabeled images, too; here they are not looked at
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

labeled_dataset = dict(
    _base_.labeled_dataset,
    ann_file=f'{_base_.splits}/92/labeled.txt',
    pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=distorted)],
)
unlabeled_dataset = dict(
    _base_.unlabeled_dataset,
    ann_file=f'{_base_.splits}/92/unlabeled.txt',
    pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', strong_1=distorted, weak=distorted)],
)
train_dataloader = dict(
    batch_size=8,
    # an epoch is 1000 steps, since the training is counted in steps
    sampler=dict(labeled=4, unlabeled=4, round_up=False, epoch_length=1000),
    dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
