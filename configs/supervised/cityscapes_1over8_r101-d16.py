# Supervised on Cityscapes, 1/8 (372 labels), ResNet-101: 72.8 mIoU published.
_base_ = './cityscapes_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_8/labeled.txt'))
