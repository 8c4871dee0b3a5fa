# FixMatch on Pascal VOC, augmented 1/4 in U2PL's selection (2646 labels), ResNet-50.
_base_ = './voc_u2pl_1over4.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
