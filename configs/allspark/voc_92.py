# AllSpark on Pascal VOC, 92 labels, the original 1/16.
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/92'))
