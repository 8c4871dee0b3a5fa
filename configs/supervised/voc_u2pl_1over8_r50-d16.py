# Supervised on Pascal VOC, augmented 1/8 in U2PL's selection (1323 labels), ResNet-50.
_base_ = './voc_u2pl_1over8_r101-d16.py'

model = dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
