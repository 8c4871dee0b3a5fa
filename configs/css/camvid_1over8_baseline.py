# CSS's baseline on CamVid 1/8.
_base_ = './camvid_1over8_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
