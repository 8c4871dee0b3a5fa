# COCO for UniMatch: no color augmentation of labeled images, smaller batches than in AllSpark.
_base_ = './coco.py'

load = [_base_.load_image, dict(type='allspark_mmseg.LoadEmptyAnnotations')]

# for 4 GPUs: 8 labeled and 8 unlabeled images per step
train_dataloader = dict(
    batch_size=4,
    sampler=dict(labeled=2, unlabeled=2),
    dataset=dict(
        labeled=dict(
            pipeline=[*_base_.load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
        ),
    ),
)
