# FixMatch on Cityscapes, 1/2 (1488 labels), ResNet-50.
_base_ = './cityscapes_1over2.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
