# S4Former's schedule: 80 epochs of 1000 steps, no weight decay, poly 0.9 down to 1e-4 for backbone and heads.
epoch, max_epochs = 1000, 80
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.0)}),
)
# MMEngine divides by end - 1; the release divides by 80 001
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=1e-4, begin=0, end=max_epochs * epoch + 2, by_epoch=False)
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
