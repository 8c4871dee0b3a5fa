# Cityscapes for CSS: crops of 769, no resize of labeled images (as released), weaker colors than in UniMatch. The model
# itself rescales and flips the unlabeled images. 186 labeled images.
_base_ = './cityscapes.py'

crop_size = (769, 769)
load_labeled = [
    _base_.load_image,
    dict(type='LoadAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(1.0, 1.0)),
]
load_unlabeled = [
    _base_.load_image,
    dict(type='allspark_mmseg.LoadEmptyAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(1.0, 1.0), flip_prob=0),
]
color = [*_base_.css_color, _base_.pack]

# for 4 GPUs: 16 labeled and 16 unlabeled images per step
train_dataloader = dict(
    batch_size=8,
    # the training is counted in steps: an epoch has 1000
    sampler=dict(labeled=4, unlabeled=4, round_up=False, epoch_length=1000),
    dataset=dict(
        labeled=dict(pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=color)]),
        unlabeled=dict(
            pipeline=[
                *load_unlabeled,
                dict(type='allspark_mmseg.MultiView', strong_1=color, weak=[_base_.pack]),
            ],
        ),
    ),
)
