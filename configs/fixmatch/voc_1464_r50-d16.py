# FixMatch on Pascal VOC, 1464 labels, the original training set, ResNet-50.
_base_ = './voc_1464.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
