# Supervised on Pascal VOC, 183 labels, the original 1/8, DINOv2-B: 82.07 mIoU in the released logs.
_base_ = './voc_92_dinov2-b14.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/183/labeled.txt'))
