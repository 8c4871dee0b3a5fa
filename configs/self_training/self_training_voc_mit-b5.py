# Self-training with online pseudo-labels on Pascal VOC, augmented 1/16 (662 labels): AllSpark's baseline, as published:
# 4 GPUs of 2 + 2 images, MiT-B5, 80 epochs.
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/voc.py',
    '../_base_/schedules/sgd_poly_80e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(_delete_=True, type='allspark_mmseg.SelfTraining', segmentor=segmentor)
auto_scale_lr = dict(enable=False, base_batch_size=16)
