# Supervised on COCO, 1/128 (925 labels), Xception-65: 33.6 mIoU published.
_base_ = './coco_1over512_xception65.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_128/labeled.txt'))
