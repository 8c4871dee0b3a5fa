# Supervised training on COCO, DINOv2-B: 4 GPUs, 8 labeled images each, 18740 steps.
# Split 1_512: 232 labeled images. Other rows: python tools/print_row.py supervised
# The number of steps is the same for all splits, as released.
# tools/dist_train.sh configs/supervised/supervised_coco_dinov2-b14.py 4
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
