# S4Former on Pascal VOC, DeiT-B: 2 GPUs, 4 labeled + 4 unlabeled images each, 80000 steps.
# Split 92: 92 labeled images. Other rows: python tools/print_row.py s4former
# tools/dist_train.sh configs/s4former/s4former_voc_deit-b16.py 2
_base_ = [
    '../_base_/models/setr-pup_deit-b16.py',
    '../_base_/datasets/voc_s4former.py',
    '../_base_/schedules/sgd_poly_80k.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(_delete_=True, type='allspark_mmseg.S4Former', segmentor=segmentor)

val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
