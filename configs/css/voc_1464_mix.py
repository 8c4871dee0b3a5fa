# CSS with mixed labels on Pascal VOC, 1464 labels.
_base_ = './voc_92_mix.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/1464/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/1464/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
