# AllSpark on Pascal VOC, 366 labels, the original 1/4.
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/366'))
