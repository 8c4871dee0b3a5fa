# FixMatch on Pascal VOC, 183 labels, the original 1/8, ResNet-50.
_base_ = './voc_183.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
