# Supervised on Pascal VOC, 366 labels, the original 1/4, ResNet-101: 64.8 mIoU published.
_base_ = './voc_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/366/labeled.txt'))
