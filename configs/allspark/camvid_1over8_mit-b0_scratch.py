# camvid_1over8.py with MiT-B0 from scratch: needs no download and shows the effect of pre-training.
_base_ = './camvid_1over8.py'

model = dict(
    segmentor=dict(
        data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
        backbone=dict(
            _delete_=True,
            type='allspark_mmseg.MixVisionTransformer',
            embed_dims=32,
            num_layers=[2, 2, 2, 2],
            num_heads=[1, 2, 5, 8],
            drop_path_rate=0.1,
        ),
        decode_head=dict(bottleneck=dict(in_channels=256), decoder=dict(in_channels=[32, 64, 160, 256])),
    )
)
