# python tools/model_converters/unimatch2mmseg.py xception.pth pretrained/xception65_mmseg.pth
_base_ = './deeplabv3plus_r50-d16.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='allspark_mmseg.Xception65',
        norm_cfg=dict(type='SyncBN', momentum=3e-4, requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='pretrained/xception65_mmseg.pth'),
    ),
)
