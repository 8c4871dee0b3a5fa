# Supervised on COCO, 1/256 (463 labels), Xception-65: 28.0 mIoU published.
_base_ = './coco_1over512_xception65.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_256/labeled.txt'))
