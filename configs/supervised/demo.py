# Supervised training on the labeled demo images, 8 per step. It takes about as long as allspark/demo.py.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/demo.py',
    '../_base_/iteration_runtime.py',
    '../_base_/schedules/adamw_poly_800i.py',
]

max_iters = 1140
param_scheduler = [dict(_base_.param_scheduler[0], end=max_iters)]
train_cfg = dict(max_iters=max_iters, val_interval=380)
default_hooks = dict(checkpoint=dict(interval=380))
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, *_base_.color, _base_.pack]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
