# Cityscapes as UniMatch has it: no colour on labelled images.
_base_ = './cityscapes_1over16.py'

# an unlabelled image as stored; the blank map tells what is padding
load = [_base_.load_image, dict(type='allspark_mmseg.BlankSegMap')]
# what methods with strong views put last in the unlabelled pipeline
strong = [*_base_.colour, _base_.pack]
one_strong_view = dict(type='allspark_mmseg.Views', strong_1=strong, weak=[_base_.pack])
two_strong_views = dict(type='allspark_mmseg.Views', strong_1=strong, strong_2=strong, weak=[_base_.pack])

labeled_dataset = dict(
    pipeline=[*_base_.load_labeled, dict(type='allspark_mmseg.Views', labeled=[_base_.pack])]
)
