# UniMatch V2's schedule on Cityscapes: as on Pascal, but longer.
_base_ = './adamw_poly_60e_dinov2.py'

max_epochs = 180
param_scheduler = [dict(_base_.param_scheduler[0], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs)
