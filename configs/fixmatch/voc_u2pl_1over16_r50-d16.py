# FixMatch on Pascal VOC, augmented 1/16 in U2PL's selection (662 labels), ResNet-50.
_base_ = './voc_u2pl_1over16.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
