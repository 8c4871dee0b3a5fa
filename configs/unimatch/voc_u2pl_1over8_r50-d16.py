# UniMatch on Pascal VOC, augmented 1/8 in U2PL's selection (1323 labels), ResNet-50: 78.96 mIoU in the released logs.
_base_ = './voc_u2pl_1over8.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
