# Supervised on Pascal VOC, 1464 labels, the original training set, ResNet-101: 73.5 mIoU published.
_base_ = './voc_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1464/labeled.txt'))
