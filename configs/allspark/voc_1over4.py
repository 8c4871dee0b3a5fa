# AllSpark on Pascal VOC, augmented 1/4 (2646 labels).
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/1_4'))
