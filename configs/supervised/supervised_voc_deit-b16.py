# S4Former's supervised baseline on Pascal VOC, 92 labels, the original 1/16: 2 GPUs of 4 images, 80 000 steps.
_base_ = [
    '../_base_/models/setr-pup_deit-b16.py',
    '../_base_/datasets/voc_s4former.py',
    '../_base_/schedules/sgd_poly_80k.py',
    '../_base_/iteration_runtime.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, *_base_.distorted]), unlabeled=None),
)

train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=_base_.max_epochs * _base_.epoch,
    val_interval=_base_.epoch,
)
default_hooks = dict(checkpoint=dict(interval=_base_.epoch))
auto_scale_lr = dict(enable=False, base_batch_size=8)
