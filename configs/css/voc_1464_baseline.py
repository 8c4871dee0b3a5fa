# CSS's baseline on Pascal VOC, 1464 labels.
_base_ = './voc_1464_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
