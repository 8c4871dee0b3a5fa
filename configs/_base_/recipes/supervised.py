# Supervised baseline on your own labeled images. The network and the images per step are those of allspark.py.
_base_ = [
    '../models/segformer_mit-b2.py',
    '../datasets/own_data.py',
    '../schedules/sgd_poly_80e.py',
    '../iteration_runtime.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, *_base_.color, _base_.pack]), unlabeled=None),
)

max_iters = 20000
param_scheduler = [
    dict(type='allspark_mmseg.PostStepPolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
