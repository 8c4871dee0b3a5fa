# Mean Teacher on Cityscapes, ResNet-101: 4 GPUs, 2 labeled + 2 unlabeled images each, 240 epochs.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py mean_teacher
# Not published: network, data and schedule are UniMatch's.
# tools/dist_train.sh configs/mean_teacher/mean_teacher_cityscapes_r101-d16.py 4
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d16_cityscapes.py',
    '../_base_/datasets/cityscapes_unimatch.py',
    '../_base_/schedules/sgd_poly_240e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(
    _delete_=True,
    type='allspark_mmseg.MeanTeacher',
    segmentor=segmentor,
    ignore_padding=True,
    predict_on='teacher',
)

train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(enable=False, base_batch_size=16)
