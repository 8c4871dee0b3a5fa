# UniMatch V2's supervised baseline on COCO, 1/512 (232 labels), as released: 4 GPUs of 8, DINOv2-B, and 20 epochs of
# 30 000 images, so of 937 steps, whatever the number of labels.
_base_ = [
    '../_base_/models/dpt_dinov2-b14.py',
    '../_base_/datasets/coco_unimatch_v2.py',
    '../_base_/schedules/adamw_poly_20e_dinov2.py',
    '../_base_/iteration_runtime.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=81))
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, _base_.pack]), unlabeled=None),
)

epoch, max_iters = 937, 18740
param_scheduler = [
    dict(type='allspark_mmseg.PostStepPolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=epoch)
default_hooks = dict(checkpoint=dict(interval=epoch))
auto_scale_lr = dict(enable=False, base_batch_size=32)
