# AllSpark on Pascal VOC, 732 labels, the original 1/2.
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/732'))
