# Pascal VOC for UniMatch: crops of 321, no color augmentation of labeled images.
_base_ = './voc.py'

crop_size = (321, 321)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
load = [_base_.load_image, dict(type='allspark_mmseg.LoadEmptyAnnotations')]
load_unlabeled = [*load, *geometry]

train_dataloader = dict(
    dataset=dict(
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
        ),
    ),
)
