# CSS's schedule: 80 epochs of 1000 steps, one learning rate, poly 0.9 down to 0. The release stops at 1e-4,
# which matters only in the last 1 % of the steps.
epoch, max_epochs = 1000, 80
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=6.4e-3, momentum=0.9, weight_decay=5e-4, nesterov=True),
)
# MMEngine divides by end - 1
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_epochs * epoch + 1, by_epoch=False)
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
