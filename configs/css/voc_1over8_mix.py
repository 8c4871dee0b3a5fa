# CSS with mixed labels on Pascal VOC, augmented 1/8 (1323 labels).
_base_ = './voc_92_mix.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/1_8/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/1_8/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
