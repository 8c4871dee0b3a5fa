# AllSpark on Pascal VOC, 1464 labels, the whole original training set.
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/1464'))
