# Supervised training on the demo data: 128 labeled images, 8 per step: the baseline of configs/METHOD/demo.py.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/demo.py',
    '../_base_/schedules/adamw_poly_800i.py',
    '../_base_/iteration_runtime.py',
]

max_iters = 2000
optim_wrapper = dict(optimizer=dict(fused=True))
param_scheduler = [dict(_base_.param_scheduler[0], end=max_iters)]
train_cfg = dict(max_iters=max_iters, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200))
custom_hooks = [dict(type='allspark_mmseg.ChannelsLastHook')]
model = dict(
    decode_head=dict(
        num_classes=len(_base_.metainfo.classes), loss_decode=dict(_base_.supervised_loss, _delete_=True)
    ),
    data_preprocessor=dict(size=_base_.crop_size),
)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, *_base_.labeled_steps]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
