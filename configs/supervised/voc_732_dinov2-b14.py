# Supervised on Pascal VOC, 732 labels, the original 1/2, DINOv2-B: 87.15 mIoU in the released logs.
_base_ = './voc_92_dinov2-b14.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/732/labeled.txt'))
