# Supervised on Cityscapes, 1/16 (186 labels), ResNet-50: 63.3 mIoU published.
_base_ = './cityscapes_1over16_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
