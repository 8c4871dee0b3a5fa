# Data loaders for small images on a CPU: 8 labeled and 8 unlabeled images per step. A data set adds paths, classes and pipelines.
train_dataloader = dict(
    batch_size=16,
    num_workers=0,  # small images: a worker process costs more than it saves
    persistent_workers=False,
    sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=8, unlabeled=8, epoch_length=100000),
    dataset=dict(type='allspark_mmseg.SemiDataset'),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='allspark_mmseg.ImageListDataset'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
