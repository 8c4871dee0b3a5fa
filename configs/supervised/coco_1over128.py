# Supervised on COCO, 1/128 (925 labels).
_base_ = './coco_1over512.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_128/labeled.txt'))
