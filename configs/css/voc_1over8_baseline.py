# CSS's baseline on Pascal VOC, augmented 1/8 (1323 labels).
_base_ = './voc_1over8_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
