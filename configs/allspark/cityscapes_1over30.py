# AllSpark on Cityscapes, 1/30 (100 labels).
_base_ = './cityscapes_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/cityscapes/1_30'))
