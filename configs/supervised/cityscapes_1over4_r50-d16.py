# Supervised on Cityscapes, 1/4 (744 labels), ResNet-50: 73.1 mIoU published.
_base_ = './cityscapes_1over4_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
