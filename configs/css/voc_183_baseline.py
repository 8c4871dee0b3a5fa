# CSS's baseline on Pascal VOC, 183 labels.
_base_ = './voc_183_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
