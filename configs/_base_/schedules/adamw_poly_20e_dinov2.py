# UniMatch V2's schedule on COCO: as on Pascal, but shorter.
_base_ = './adamw_poly_60e_dinov2.py'

max_epochs = 20
param_scheduler = [dict(_base_.param_scheduler[0], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs)
