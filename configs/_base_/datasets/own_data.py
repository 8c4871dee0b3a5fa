# Your own data. A child config sets data_root, metainfo and the lists or folders of the two streams:
# `python -m allspark_mmseg new DATA` writes it. Another crop goes between the load and the views of each stream.
_base_ = ['../balanced_loss.py', '../color.py', '../tta.py']

crop_size = (513, 513)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
# LoadEmptyAnnotations marks the padding
load_unlabeled = [dict(type='LoadImageFromFile'), dict(type='allspark_mmseg.LoadEmptyAnnotations')]
pack = dict(type='PackSegInputs')
labeled_views = [dict(type='allspark_mmseg.MultiView', labeled=[*_base_.color, pack])]
unlabeled_views = [dict(type='allspark_mmseg.MultiView', weak=[pack])]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), pack]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[*_base_.tta_views, [dict(type='LoadAnnotations')], [pack]]),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=4, unlabeled=4),
    dataset=dict(
        type='allspark_mmseg.SemiDataset',
        labeled=dict(pipeline=[*load_labeled, *geometry, *labeled_views]),
        unlabeled=dict(pipeline=[*load_unlabeled, *geometry, *unlabeled_views]),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='allspark_mmseg.ImageListDataset', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=8)
