# AllSpark on Pascal VOC, 183 labels, with the smaller MiT-B4: a row of the paper's comparison of backbones.
_base_ = './voc_183.py'

_weights = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer'
model = dict(
    segmentor=dict(
        backbone=dict(
            num_layers=[3, 8, 27, 3],
            init_cfg=dict(checkpoint=f'{_weights}/mit_b4_20220624-d588d980.pth'),
        )
    )
)
