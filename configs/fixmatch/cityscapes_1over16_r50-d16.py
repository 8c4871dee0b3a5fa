# FixMatch on Cityscapes, 1/16 (186 labels), ResNet-50.
_base_ = './cityscapes_1over16.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
