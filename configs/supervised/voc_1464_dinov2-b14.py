# Supervised on Pascal VOC, 1464 labels, the original training set, DINOv2-B: 88.30 mIoU in the released logs.
_base_ = './voc_92_dinov2-b14.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1464/labeled.txt'))
