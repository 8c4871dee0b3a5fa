# CSS with crossed labels on Cityscapes 1/4 (744 labels).
_base_ = './cityscapes_1over4_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
