# UniMatch on Pascal VOC, 732 labels, the original 1/2, ResNet-50: 77.39 mIoU in the released logs.
_base_ = './voc_732.py'

model = dict(
    segmentor=dict(backbone=dict(depth=50, init_cfg=dict(checkpoint='pretrained/resnet50_mmseg.pth')))
)
