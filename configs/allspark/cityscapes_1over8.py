# AllSpark on Cityscapes, 1/8 (372 labels).
_base_ = './cityscapes_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/cityscapes/1_8'))
