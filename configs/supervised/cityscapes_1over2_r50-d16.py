# Supervised on Cityscapes, 1/2 (1488 labels), ResNet-50: 76.6 mIoU published.
_base_ = './cityscapes_1over2_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
