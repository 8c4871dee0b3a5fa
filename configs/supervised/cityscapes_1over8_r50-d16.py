# Supervised on Cityscapes, 1/8 (372 labels), ResNet-50: 70.2 mIoU published.
_base_ = './cityscapes_1over8_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
