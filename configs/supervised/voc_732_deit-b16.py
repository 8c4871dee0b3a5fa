# S4Former's supervised baseline on Pascal VOC, 732 labels.
_base_ = './voc_92_deit-b16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/732/labeled.txt'))
