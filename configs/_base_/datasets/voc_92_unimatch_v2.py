# Pascal VOC as UniMatch V2 has it, 92 labels: voc_1over16_unimatch.py with crops of a multiple of 14.
_base_ = './voc_1over16_unimatch.py'

crop_size = (518, 518)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
load_unlabeled = [*_base_.load, *geometry]

labeled_dataset = dict(
    ann_file=f'{_base_.splits}/92/labeled.txt',
    pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])],
)
unlabeled_dataset = dict(ann_file=f'{_base_.splits}/92/unlabeled.txt')
# for 4 GPUs: 16 labeled and 16 unlabeled images a step
train_dataloader = dict(batch_size=8, sampler=dict(labeled=4, unlabeled=4))
