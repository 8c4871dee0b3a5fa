# CSS's baseline on Pascal VOC, 366 labels.
_base_ = './voc_366_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
