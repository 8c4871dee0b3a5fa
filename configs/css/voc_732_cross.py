# CSS with crossed labels on Pascal VOC, 732 labels.
_base_ = './voc_732_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
