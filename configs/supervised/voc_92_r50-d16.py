# Supervised on Pascal VOC, 92 labels, the original 1/16, ResNet-50.
_base_ = './voc_92_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
