# Cityscapes as UniMatch has it: no colour on labelled images.
_base_ = './cityscapes_1over16.py'

# an unlabelled image as stored; the blank map tells what is padding
load = [_base_.load_image, dict(type='allspark_mmseg.BlankSegMap')]

labeled_dataset = dict(
    pipeline=[*_base_.load_labeled, dict(type='allspark_mmseg.Views', labeled=[_base_.pack])]
)
