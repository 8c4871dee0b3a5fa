# AllSpark on COCO, 1/32 (3697 labels).
_base_ = './coco_1over512.py'

train_dataloader = dict(dataset=dict(split='data/splits/coco/1_32'))
