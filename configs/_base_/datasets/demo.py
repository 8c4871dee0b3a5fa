# The demo data: handwritten digits over busy backgrounds, made by tools/dataset_converters/make_demo_data.py.
_base_ = ['../color.py', '../small_loaders.py', '../tta.py']

data_root = 'data/demo'
crop_size = (97, 97)
metainfo = dict(
    classes=('background', 'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'),
    palette=[[0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48],
             [145, 30, 180], [70, 240, 240], [240, 50, 230], [170, 255, 195], [170, 110, 40]],
)  # fmt: skip

# no flip: a mirrored digit is another class
geometry = [
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(0.75, 1.5), flip_prob=0)
]
load_labeled = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *geometry]
# LoadEmptyAnnotations marks the padding
load_unlabeled = [dict(type='LoadImageFromFile'), dict(type='allspark_mmseg.LoadEmptyAnnotations'), *geometry]
pack = dict(type='PackSegInputs')
supervised_loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)  # the digits are equally frequent
labeled_steps = [*_base_.color, pack]  # after load_labeled, also in supervised training
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), pack]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    # no mirrored views, because a mirrored digit is another class
    dict(type='TestTimeAug', transforms=[_base_.tta_views[0], [dict(type='LoadAnnotations')], [pack]]),
]

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        split='.',
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
    batch_size=10,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
