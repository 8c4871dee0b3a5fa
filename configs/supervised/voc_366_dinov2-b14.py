# Supervised on Pascal VOC, 366 labels, the original 1/4, DINOv2-B: 85.27 mIoU in the released logs.
_base_ = './voc_92_dinov2-b14.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/366/labeled.txt'))
