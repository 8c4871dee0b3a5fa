# CSS's baseline on Pascal VOC, 92 labels.
_base_ = './voc_92_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
