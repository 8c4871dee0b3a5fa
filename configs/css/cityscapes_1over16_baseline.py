# CSS's baseline on Cityscapes 1/16 (186 labels).
_base_ = './cityscapes_1over16_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
