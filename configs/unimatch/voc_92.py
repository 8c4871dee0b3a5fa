# UniMatch on Pascal VOC, 92 labels, the original 1/16: 75.2 mIoU published.
_base_ = './voc_1over16.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/92/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/92/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
