# Supervised training on the 46 labeled images of CamVid 1/8; iterations and images per step (8) as in allspark/camvid_1over8.py.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/camvid_1over8.py',
    '../_base_/iteration_runtime.py',
    '../_base_/schedules/adamw_poly_800i.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, _base_.pack]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
