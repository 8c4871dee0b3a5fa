# CSS with crossed labels on Pascal VOC, 366 labels.
_base_ = './voc_366_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
