# Supervised on Cityscapes, 1/30 (100 labels), ResNet-50.
_base_ = './cityscapes_1over30_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
