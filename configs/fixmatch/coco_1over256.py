# FixMatch on COCO, 1/256 (463 labels).
_base_ = './coco_1over512.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/1_256/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/1_256/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
