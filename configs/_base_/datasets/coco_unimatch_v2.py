# COCO for UniMatch V2: coco_unimatch.py with crops of a multiple of 14 and larger batches.
_base_ = './coco_unimatch.py'

crop_size = (518, 518)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
load_unlabeled = [*_base_.load, *geometry]

# for 4 GPUs: 16 labeled and 16 unlabeled images per step
train_dataloader = dict(
    batch_size=8,
    sampler=dict(labeled=4, unlabeled=4),
    dataset=dict(
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
        ),
    ),
)
