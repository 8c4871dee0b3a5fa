# Supervised on Cityscapes, 1/30 (100 labels), ResNet-101.
_base_ = './cityscapes_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_30/labeled.txt'))
