# Magnetic tiles (Huang et al., The Visual Computer 2018), 6 classes, 103 to 620 pixels wide: 36 training images are labeled, the
# other 634 are not. The masks have one class number per pixel.
_base_ = ['../balanced_loss.py', '../color.py', '../small_loaders.py', '../tta.py']

data_root = 'data/magnetic_tile'
crop_size = (129, 129)
metainfo = dict(
    classes=('free', 'blowhole', 'break', 'crack', 'fray', 'uneven'),
    palette=[[0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48]],
)  # fmt: skip

# blowholes cover 0.2 % of their image, and cracks 0.7 %
geometry = [dict(type='allspark_mmseg.RareClassCrop', crop_size=crop_size, rare_prob=0.7)]
load_labeled = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *geometry]
# LoadEmptyAnnotations marks the padding
load_unlabeled = [dict(type='LoadImageFromFile'), dict(type='allspark_mmseg.LoadEmptyAnnotations'), *geometry]
pack = dict(type='PackSegInputs')
supervised_loss = _base_.balanced_loss
labeled_steps = [*_base_.color, pack]  # after load_labeled, also in supervised training
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), pack]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[*_base_.tta_views, [dict(type='LoadAnnotations')], [pack]]),
]

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        split='{{ fileDirname }}/../splits/magnetic_tile/36',
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
    batch_size=1,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
