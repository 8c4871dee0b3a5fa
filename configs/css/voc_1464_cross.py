# CSS with crossed labels on Pascal VOC, 1464 labels.
_base_ = './voc_1464_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
