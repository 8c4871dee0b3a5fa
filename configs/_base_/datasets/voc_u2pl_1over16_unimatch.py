# voc_1over16_unimatch.py with U2PL's selection of labeled images, crops of 513, and batches for 2 GPUs.
_base_ = './voc_1over16_unimatch.py'

crop_size = (513, 513)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
load_unlabeled = [*_base_.load, *geometry]

labeled_dataset = dict(
    ann_file=f'{_base_.splits}/u2pl_1_16/labeled.txt',
    pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
)
unlabeled_dataset = dict(ann_file=f'{_base_.splits}/u2pl_1_16/unlabeled.txt')
# for 2 GPUs: 8 labeled and 8 unlabeled images a step
train_dataloader = dict(batch_size=8, sampler=dict(labeled=4, unlabeled=4))
