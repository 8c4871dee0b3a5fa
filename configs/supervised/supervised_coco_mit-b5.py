# Supervised training on COCO, MiT-B5: 4 GPUs, 8 labeled images each, 10 epochs.
# Split 1_512: 232 labeled images. Other rows: python tools/print_row.py supervised
# An epoch is one pass over the labeled images, as published: far fewer steps than with unlabeled images.
# tools/dist_train.sh configs/supervised/supervised_coco_mit-b5.py 4
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/coco.py',
    '../_base_/schedules/sgd_poly_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=81))
train_dataloader = dict(
    batch_size=8,
    drop_last=True,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(labeled=dict(pipeline=[*_base_.load_labeled, *_base_.color, _base_.pack]), unlabeled=None),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
