# Supervised on Pascal VOC, 732 labels, the original 1/2, ResNet-50.
_base_ = './voc_732_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
