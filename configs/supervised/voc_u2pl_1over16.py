# Supervised on Pascal VOC, augmented 1/16 in U2PL's selection (662 labels).
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/u2pl_1_16/labeled.txt'))
