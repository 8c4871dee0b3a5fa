# AllSpark on Pascal VOC, augmented 1/2 (5291 labels).
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/1_2'))
