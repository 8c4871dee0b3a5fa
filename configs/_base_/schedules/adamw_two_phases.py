# Two phases: supervised training until it stops improving, then the method, which starts from the best supervised weights.
# A child config changes the lengths: max_iters of custom_hooks[0] for phase 1, and train_cfg and param_scheduler for phase 2.
max_iters = 10000  # of phase 2
optim_wrapper = dict(
    type='OptimWrapper',
    # the rates of SegFormer: the decoder learns ten times as fast as the backbone
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.0)}),
)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)]
train_cfg = dict(type='allspark_mmseg.PhaseTrainLoop', max_iters=max_iters, val_interval=500)
# WarmStartHook replaces this loop: student and teacher are validated, and the better one is kept
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(
        type='allspark_mmseg.WarmStartHook',
        max_iters=5000,  # of phase 1, at most
        val_interval=250,
        patience=6,  # validations without a new best value end phase 1
        ramp_up=500,  # iterations of phase 2 until the unlabeled images count fully
        give_up=8,  # validations of phase 2 without a value above phase 1 end the training
    ),
]
