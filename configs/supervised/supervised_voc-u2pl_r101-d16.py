# Supervised training on Pascal VOC, ResNet-101: 2 GPUs, 8 labeled images each, 80 epochs.
# Split u2pl_1_16: 662 labeled images. Other rows: python tools/print_row.py supervised
# An epoch is one pass over the labeled images, as published: far fewer steps than with unlabeled images.
# tools/dist_train.sh configs/supervised/supervised_voc-u2pl_r101-d16.py 2
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d16.py',
    '../_base_/datasets/voc_u2pl_unimatch.py',
    '../_base_/schedules/sgd_poly_80e.py',
    '../_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(
    batch_size=8,
    drop_last=True,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, _base_.pack]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
