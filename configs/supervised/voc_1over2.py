# Supervised on Pascal VOC, augmented 1/2 (5291 labels).
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_2/labeled.txt'))
