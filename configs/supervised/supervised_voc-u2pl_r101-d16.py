# UniMatch's supervised baseline on Pascal VOC, augmented 1/16 in U2PL's selection (662 labels), as UniMatch's release
# has it: 2 GPUs of 8, ResNet-101, and 80 epochs of the labeled images, so far fewer steps than with unlabeled ones.
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
