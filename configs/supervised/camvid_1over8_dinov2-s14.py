# Supervised training on the 46 labeled images of CamVid 1/8, DINOv2 ViT-S; iterations as in unimatch_v2/camvid_1over8.py.
_base_ = [
    '../_base_/models/dpt_dinov2-s14.py',
    '../_base_/datasets/camvid_1over8_dinov2.py',
    '../_base_/iteration_runtime.py',
    '../_base_/schedules/adamw_poly_800i.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(init_cfg=dict(checkpoint='checkpoints/dinov2_small.pth')),
    decode_head=dict(num_classes=11),
)
optim_wrapper = dict(optimizer=dict(lr=5e-6), paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=40.0)}))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, _base_.pack]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
