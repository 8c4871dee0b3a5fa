# Supervised on Cityscapes, 1/2 (1488 labels), ResNet-101: 78.0 mIoU published.
_base_ = './cityscapes_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_2/labeled.txt'))
