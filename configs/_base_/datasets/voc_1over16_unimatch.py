# Pascal VOC as UniMatch has it: crops of 321, and no color on labeled images.
_base_ = './voc_1over16.py'

crop_size = (321, 321)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
# an unlabeled image as stored; the blank map tells what is padding
load = [_base_.load_image, dict(type='allspark_mmseg.LoadEmptyAnnotations')]
load_unlabeled = [*load, *geometry]

labeled_dataset = dict(pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])])
