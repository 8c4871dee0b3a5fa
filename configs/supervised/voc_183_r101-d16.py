# Supervised on Pascal VOC, 183 labels, the original 1/8, ResNet-101: 55.3 mIoU published.
_base_ = './voc_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/183/labeled.txt'))
