# FixMatch on Cityscapes, DINOv2-B: 4 GPUs, 2 labeled + 2 unlabeled images each, 180 epochs.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py fixmatch
# tools/dist_train.sh configs/fixmatch/fixmatch_cityscapes_dinov2-b14.py 4
_base_ = [
    '../_base_/models/dpt_dinov2-b14_cityscapes.py',
    '../_base_/datasets/cityscapes_unimatch_v2.py',
    '../_base_/schedules/adamw_poly_180e_dinov2.py',
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
auto_scale_lr = dict(enable=False, base_batch_size=16)
