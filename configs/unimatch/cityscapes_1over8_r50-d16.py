# UniMatch on Cityscapes, 1/8 (372 labels), ResNet-50: 76.8 mIoU published.
_base_ = './cityscapes_1over8.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
