# Supervised on Pascal VOC, 366 labels, the original 1/4, ResNet-50.
_base_ = './voc_366_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
