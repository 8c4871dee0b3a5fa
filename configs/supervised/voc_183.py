# Supervised on Pascal VOC, 183 labels, the original 1/8.
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/183/labeled.txt'))
