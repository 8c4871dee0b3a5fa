# FixMatch on Pascal VOC, DINOv2-B: 4 GPUs, 4 labeled + 4 unlabeled images each, 60 epochs.
# Split 92: 92 labeled images. Other rows: python tools/print_row.py fixmatch
# tools/dist_train.sh configs/fixmatch/fixmatch_voc_dinov2-b14.py 4
_base_ = [
    '../_base_/models/dpt_dinov2-b14.py',
    '../_base_/datasets/voc_unimatch_v2.py',
    '../_base_/schedules/adamw_poly_60e_dinov2.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(
    _delete_=True, type='allspark_mmseg.FixMatch', segmentor=segmentor, teacher=dict(), predict_on='teacher'
)

train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
auto_scale_lr = dict(enable=False, base_batch_size=32)
