# Supervised on COCO, 1/32 (3697 labels), Xception-65: 42.2 mIoU published.
_base_ = './coco_1over512_xception65.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_32/labeled.txt'))
