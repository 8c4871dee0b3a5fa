# Supervised on Pascal VOC, 92 labels, the original 1/16.
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/92/labeled.txt'))
