# Cityscapes for UniMatch: no color augmentation of labeled images.
_base_ = './cityscapes.py'

load = [_base_.load_image, dict(type='allspark_mmseg.LoadEmptyAnnotations')]

train_dataloader = dict(
    dataset=dict(
        labeled=dict(
            pipeline=[*_base_.load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
        ),
    ),
)
