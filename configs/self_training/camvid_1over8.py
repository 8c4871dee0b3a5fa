# Self-training with online pseudo-labels on CamVid 1/8: AllSpark without the bottleneck.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/camvid_1over8.py',
    '../_base_/schedules/adamw_poly_10e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(_delete_=True, type='allspark_mmseg.SelfTraining', segmentor=segmentor)
auto_scale_lr = dict(enable=False, base_batch_size=8)
