# Supervised on Cityscapes, 1/4 (744 labels), ResNet-101: 75.0 mIoU published.
_base_ = './cityscapes_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_4/labeled.txt'))
