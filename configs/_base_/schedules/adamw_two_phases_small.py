# adamw_two_phases.py for a small network and small images on a CPU: one learning rate for all layers, 1000 + 1000 iterations.
_base_ = './adamw_two_phases.py'

max_iters = 1000
optim_wrapper = dict(optimizer=dict(lr=6e-4, fused=True), paramwise_cfg=None)
param_scheduler = [dict(_base_.param_scheduler[0], end=max_iters)]
train_cfg = dict(max_iters=max_iters, val_interval=200)
custom_hooks = [
    dict(
        type='allspark_mmseg.WarmStartHook',
        max_iters=1000,
        val_interval=200,
        ramp_up=100,
        give_up=None,
    ),
    dict(type='allspark_mmseg.ChannelsLastHook'),
]
