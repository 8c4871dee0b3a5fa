# python tools/model_converters/unimatch2mmseg.py resnet101.pth pretrained/resnet101_mmseg.pth
_base_ = './deeplabv3plus_r50-d16.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='pretrained/resnet101_mmseg.pth')),
)
