# S4Former's supervised baseline on Cityscapes 1/8 (372 labels).
_base_ = './cityscapes_1over16_deit-b16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_8/labeled.txt'))
