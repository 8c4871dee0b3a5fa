# Pascal VOC for UniMatch with U2PL's labeled images: crops of 513, batches for 2 GPUs.
_base_ = './voc_unimatch.py'

crop_size = (513, 513)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
load_unlabeled = [*_base_.load, *geometry]

# for 2 GPUs: 8 labeled and 8 unlabeled images per step
train_dataloader = dict(
    batch_size=8,
    sampler=dict(labeled=4, unlabeled=4),
    dataset=dict(
        split='data/splits/voc/u2pl_1_16',
        labeled=dict(
            pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
        ),
    ),
)
