# The released schedule of AllSpark on COCO: as on Pascal, but shorter.
_base_ = './sgd_poly_80e.py'

max_epochs = 10
param_scheduler = [dict(_base_.param_scheduler[0], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs)
