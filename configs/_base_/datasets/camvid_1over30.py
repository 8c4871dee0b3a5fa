# CamVid at half its size, 240 x 180, for training on a CPU: every 30th of the sorted training names is labeled (13), the others are
# not (354). The validation is at full size.
_base_ = ['../balanced_loss.py', '../color.py', '../small_loaders.py', '../tta.py']

data_root = 'data/camvid'
crop_size = (97, 97)
metainfo = dict(
    classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian',
             'bicyclist'),
    palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
             [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]],
)  # fmt: skip

# plus one: the padding of EfficientNet-Lite depends on the parity of a size, and the crop size is odd
half = dict(type='Resize', scale=(241, 181), keep_ratio=False)
geometry = [half, dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *geometry]
# LoadEmptyAnnotations marks the padding
load_unlabeled = [dict(type='LoadImageFromFile'), dict(type='allspark_mmseg.LoadEmptyAnnotations'), *geometry]
pack = dict(type='PackSegInputs')
supervised_loss = _base_.balanced_loss
labeled_steps = [*_base_.color, pack]  # after load_labeled, also in supervised training
test_pipeline = [dict(type='LoadImageFromFile'), half, dict(type='LoadAnnotations'), pack]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    half,
    dict(type='TestTimeAug', transforms=[*_base_.tta_views, [dict(type='LoadAnnotations')], [pack]]),
]

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        split='{{ fileDirname }}/../splits/camvid/1over30',
        metainfo=metainfo,
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=labeled_steps)],
        ),
        unlabeled=dict(
            pipeline=[*load_unlabeled, dict(type='allspark_mmseg.MultiView', weak=[pack])],
        ),
    ),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
