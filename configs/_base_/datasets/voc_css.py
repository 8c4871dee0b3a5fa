# Pascal VOC for CSS: crops of 512, labeled images resized by 0.5 to 1.5, weaker colors than in UniMatch. The model itself
# rescales and flips the unlabeled images. 92 labeled images.
_base_ = './voc.py'

crop_size = (512, 512)
load_labeled = [
    _base_.load_image,
    dict(type='LoadAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(0.5, 1.5)),
]
load_unlabeled = [
    _base_.load_image,
    dict(type='allspark_mmseg.LoadEmptyAnnotations'),
    dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size, ratio_range=(1.0, 1.0), flip_prob=0),
]
color = [*_base_.css_color, _base_.pack]

# for 4 GPUs: 32 labeled and 32 unlabeled images per step
train_dataloader = dict(
    batch_size=16,
    # the training is counted in steps: an epoch has 1000
    sampler=dict(labeled=8, unlabeled=8, round_up=False, epoch_length=1000),
    dataset=dict(
        split='data/splits/voc/92',
        labeled=dict(pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=color)]),
        unlabeled=dict(
            pipeline=[
                *load_unlabeled,
                dict(type='allspark_mmseg.MultiView', strong_1=color, weak=[_base_.pack]),
            ],
        ),
    ),
)
