# Supervised on COCO, 1/32 (3697 labels), DINOv2-B.
_base_ = './coco_1over512_dinov2-b14.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_32/labeled.txt'))
