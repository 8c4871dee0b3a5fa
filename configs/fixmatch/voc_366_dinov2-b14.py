# FixMatch, DINOv2-B, on Pascal VOC, 366 labels, the original 1/4: 88.21 mIoU in the released logs.
_base_ = './voc_92_dinov2-b14.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/366/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/366/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
