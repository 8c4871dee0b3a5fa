# Cityscapes as UniMatch has it: no color on labeled images.
_base_ = './cityscapes_1over16.py'

# an unlabeled image as stored; the blank map tells what is padding
load = [_base_.load_image, dict(type='allspark_mmseg.LoadEmptyAnnotations')]

labeled_dataset = dict(
    pipeline=[*_base_.load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])]
)
