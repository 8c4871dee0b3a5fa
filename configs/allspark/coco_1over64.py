# AllSpark on COCO, 1/64 (1849 labels).
_base_ = './coco_1over512.py'

train_dataloader = dict(dataset=dict(split='data/splits/coco/1_64'))
