# Supervised on Pascal VOC, 732 labels, the original 1/2, ResNet-101: 69.7 mIoU published.
_base_ = './voc_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/732/labeled.txt'))
