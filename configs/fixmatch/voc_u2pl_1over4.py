# FixMatch on Pascal VOC, augmented 1/4 in U2PL's selection (2646 labels).
_base_ = './voc_u2pl_1over16.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/u2pl_1_4/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/u2pl_1_4/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
