# Supervised training on Pascal VOC, DeiT-B: 2 GPUs, 4 labeled images each, 80000 steps.
# Split 92: 92 labeled images. Other rows: python tools/print_row.py supervised
# The supervised baseline of S4Former.
# tools/dist_train.sh configs/supervised/supervised_voc_deit-b16.py 2
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
