# FixMatch on the demo data: 128 labeled and 872 unlabeled images, 8 + 8 per step, after 1000 supervised steps.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/demo.py',
    '../_base_/schedules/adamw_two_phases_small.py',
    '../_base_/iteration_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.num_classes = len(_base_.metainfo.classes)
segmentor.decode_head.loss_decode = _base_.supervised_loss
model = dict(
    _delete_=True,
    type='allspark_mmseg.FixMatch',
    segmentor=segmentor,
    teacher=dict(momentum=0.02),
    predict_on='teacher',
)
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
