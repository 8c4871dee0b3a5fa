# Supervised training on Cityscapes, DeiT-B: 2 GPUs, 4 labeled images each, 40000 steps.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py supervised
# The supervised baseline of S4Former; its release has no config for Cityscapes.
# tools/dist_train.sh configs/supervised/supervised_cityscapes_deit-b16.py 2
_base_ = [
    '../_base_/models/setr-pup_deit-b16.py',
    '../_base_/datasets/cityscapes_s4former.py',
    '../_base_/schedules/sgd_poly_80k.py',
    '../_base_/iteration_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(img_size=_base_.crop_size),
    decode_head=dict(num_classes=19),
    auxiliary_head=[dict(head, num_classes=19) for head in _base_.model.auxiliary_head],
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(512, 512)),
)
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, *_base_.distorted]), unlabeled=None),
)

epoch, max_epochs = 1000, 40
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=1e-4, begin=0, end=max_epochs * epoch + 2, by_epoch=False)
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_epochs * epoch, val_interval=epoch)
default_hooks = dict(checkpoint=dict(interval=epoch))
auto_scale_lr = dict(enable=False, base_batch_size=8)
