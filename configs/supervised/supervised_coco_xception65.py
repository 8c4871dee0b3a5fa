# UniMatch's supervised baseline on COCO, 1/512 (232 labels), as published (22.9 mIoU): 4 GPUs of 4, Xception-65, and
# 30 epochs of the labeled images, so far fewer steps than with unlabeled ones.
_base_ = [
    '../_base_/models/deeplabv3plus_xception65.py',
    '../_base_/datasets/coco_unimatch.py',
    '../_base_/schedules/sgd_poly_30e.py',
    '../_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=81))
train_dataloader = dict(
    batch_size=4,
    drop_last=True,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, _base_.pack]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
