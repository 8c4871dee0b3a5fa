# CSS's baseline on Cityscapes 1/2 (1488 labels).
_base_ = './cityscapes_1over2_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
