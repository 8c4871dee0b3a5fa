# AllSpark on Pascal VOC, 183 labels, the original 1/8.
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/183'))
