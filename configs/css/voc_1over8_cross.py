# CSS with crossed labels on Pascal VOC, augmented 1/8 (1323 labels).
_base_ = './voc_1over8_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
