# Supervised on Cityscapes, 1/30 (100 labels).
_base_ = './cityscapes_1over16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_30/labeled.txt'))
