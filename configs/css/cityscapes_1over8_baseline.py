# CSS's baseline on Cityscapes 1/8 (372 labels).
_base_ = './cityscapes_1over8_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
