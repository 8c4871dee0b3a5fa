# AllSpark on COCO, 1/256 (463 labels).
_base_ = './coco_1over512.py'

train_dataloader = dict(dataset=dict(split='data/splits/coco/1_256'))
