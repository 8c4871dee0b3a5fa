# UniMatch V2's schedule on Pascal: AdamW, DINOv2 at lr, its decoder at 40 lr, poly 0.9 every iteration,
# set after the step (so steps 0 and 1 have the full rate).
_base_ = './sgd_poly_80e.py'

max_epochs = 60
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-6, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=40.0)}),
)
param_scheduler = [dict(_base_.param_scheduler[0], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs)
