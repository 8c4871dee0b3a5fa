# UniMatch V2 on COCO, 1/64 (1849 labels): 60.4 mIoU published.
_base_ = './coco_1over512.py'

labeled_dataset = dict(_base_.labeled_dataset, ann_file=f'{_base_.splits}/1_64/labeled.txt')
unlabeled_dataset = dict(_base_.unlabeled_dataset, ann_file=f'{_base_.splits}/1_64/unlabeled.txt')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
