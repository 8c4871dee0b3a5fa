# Supervised on Pascal VOC, augmented 1/4 (2646 labels), ResNet-101.
_base_ = './voc_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_4/labeled.txt'))
