# CSS with crossed labels on Cityscapes 1/8 (372 labels).
_base_ = './cityscapes_1over8_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
