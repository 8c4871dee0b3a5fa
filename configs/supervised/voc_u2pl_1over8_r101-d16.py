# Supervised on Pascal VOC, augmented 1/8 in U2PL's selection (1323 labels), ResNet-101.
_base_ = './voc_u2pl_1over16_r101-d16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/u2pl_1_8/labeled.txt'))
