# Cityscapes for UniMatch V2: cityscapes_unimatch.py with crops of a multiple of 14.
_base_ = './cityscapes_unimatch.py'

crop_size = (798, 798)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
load_unlabeled = [*_base_.load, *geometry]

train_dataloader = dict(
    dataset=dict(
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
        ),
    ),
)
