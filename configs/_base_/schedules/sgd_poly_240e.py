# The released schedule of AllSpark and UniMatch on Cityscapes: longer than on Pascal, and one learning rate for the whole network.
_base_ = './sgd_poly_80e.py'

max_epochs = 240
optim_wrapper = dict(paramwise_cfg=None)
param_scheduler = [dict(_base_.param_scheduler[0], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs)
