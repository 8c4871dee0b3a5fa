# CSS's baseline on Pascal VOC, augmented 1/4 (2646 labels).
_base_ = './voc_1over4_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
