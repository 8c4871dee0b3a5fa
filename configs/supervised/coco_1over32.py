# Supervised on COCO, 1/32 (3697 labels).
_base_ = './coco_1over512.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_32/labeled.txt'))
