# The labeled images of Pascal VOC, augmented 1/16 (662 labels) alone, as published: 4 GPUs of 4, MiT-B5, and
# 80 epochs of the labeled images, so far fewer steps than with unlabeled ones.
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/voc.py',
    '../_base_/schedules/sgd_poly_80e.py',
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
