# Supervised on Cityscapes, 1/4 (744 labels), DINOv2-B: 83.98 mIoU in the released logs.
_base_ = './cityscapes_1over16_dinov2-b14.py'

train_dataloader = dict(dataset=dict(ann_file=f'{_base_.splits}/1_4/labeled.txt'))
