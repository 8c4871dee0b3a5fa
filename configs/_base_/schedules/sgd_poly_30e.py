# UniMatch's schedule on COCO: as on Pascal, but shorter, and at four times the rate.
_base_ = './sgd_poly_80e.py'

max_epochs = 30
optim_wrapper = dict(optimizer=dict(lr=0.004))
param_scheduler = [dict(_base_.param_scheduler[0], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs)
