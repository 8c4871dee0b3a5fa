# Supervised on COCO, 1/64 (1849 labels), Xception-65: 37.8 mIoU published.
_base_ = './coco_1over512_xception65.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_64/labeled.txt'))
