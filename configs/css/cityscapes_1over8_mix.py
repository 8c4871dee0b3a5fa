# CSS with mixed labels on Cityscapes 1/8 (372 labels).
_base_ = './cityscapes_1over16_mix.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/1_8/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/1_8/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
