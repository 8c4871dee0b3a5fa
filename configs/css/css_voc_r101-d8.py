# CSS with mixed labels on Pascal VOC, 92 labels, the original 1/16: tools/dist_train.sh configs/css/css_voc_r101-d8.py 4
_base_ = [
    '../_base_/models/css_r101-d8.py',
    '../_base_/datasets/voc_css.py',
    '../_base_/schedules/sgd_poly_80k_css.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(
    _delete_=True,
    type='allspark_mmseg.CSSMix',
    segmentor=segmentor,
    # the release ends the contrast after 200 epochs of the labeled images, here 400 steps
    contrast_ramp_down=_base_.max_epochs * _base_.epoch,
    ignore_padding=True,
    predict_on='teacher',
)

val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
auto_scale_lr = dict(enable=False, base_batch_size=64)
