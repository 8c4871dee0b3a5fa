# CSS with mixed labels on Cityscapes, ResNet-101: 4 GPUs, 4 labeled + 4 unlabeled images each, 80000 steps.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py css
# tools/dist_train.sh configs/css/css_cityscapes_r101-d8.py 4
_base_ = [
    '../_base_/models/css_r101-d8.py',
    '../_base_/datasets/cityscapes_css.py',
    '../_base_/schedules/sgd_poly_80k_css.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.num_classes = 19
segmentor.decode_head.loss_decode = dict(
    type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000
)
model = dict(
    _delete_=True,
    type='allspark_mmseg.CSSMix',
    segmentor=segmentor,
    scale_range=(0.5, 2.0),
    # over the whole training; the release ends the contrast after 200 epochs of the labeled images (2200 steps)
    contrast_ramp_down=_base_.max_epochs * _base_.epoch,
    ignore_padding=True,
    predict_on='teacher',
)

val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
auto_scale_lr = dict(enable=False, base_batch_size=32)
