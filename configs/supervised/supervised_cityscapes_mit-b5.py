# Supervised training on Cityscapes, MiT-B5: 4 GPUs, 4 labeled images each, 240 epochs.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py supervised
# An epoch is one pass over the labeled images, as published: far fewer steps than with unlabeled images.
# tools/dist_train.sh configs/supervised/supervised_cityscapes_mit-b5.py 4
_base_ = [
    '../_base_/models/segformer_mit-b5_cityscapes.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/sgd_poly_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(
    batch_size=4,
    drop_last=True,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, *_base_.color, _base_.pack]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
