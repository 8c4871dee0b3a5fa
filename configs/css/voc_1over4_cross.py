# CSS with crossed labels on Pascal VOC, augmented 1/4 (2646 labels).
_base_ = './voc_1over4_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
