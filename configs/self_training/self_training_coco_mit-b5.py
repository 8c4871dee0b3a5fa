# Self-training with online pseudo-labels on COCO 1/512 (232 labels): AllSpark's baseline, as published:
# 4 GPUs of 4 + 4 images, MiT-B5, 10 epochs.
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/coco.py',
    '../_base_/schedules/sgd_poly_10e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.num_classes = 81
model = dict(_delete_=True, type='allspark_mmseg.SelfTraining', segmentor=segmentor)
auto_scale_lr = dict(enable=False, base_batch_size=32)
