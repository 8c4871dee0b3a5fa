# S4Former on Cityscapes, DeiT-B: 2 GPUs, 4 labeled + 4 unlabeled images each, 40000 steps.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py s4former
# The release has a data set file for Cityscapes, but no config.
# tools/dist_train.sh configs/s4former/s4former_cityscapes_deit-b16.py 2
_base_ = [
    '../_base_/models/setr-pup_deit-b16.py',
    '../_base_/datasets/cityscapes_s4former.py',
    '../_base_/schedules/sgd_poly_80k.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.backbone.img_size = _base_.crop_size
segmentor.decode_head.num_classes = 19
segmentor.auxiliary_head = [dict(head, num_classes=19) for head in segmentor.auxiliary_head]
segmentor.test_cfg = dict(mode='slide', crop_size=_base_.crop_size, stride=(512, 512))
model = dict(_delete_=True, type='allspark_mmseg.S4Former', segmentor=segmentor)

epoch, max_epochs = 1000, 40
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=1e-4, begin=0, end=max_epochs * epoch + 2, by_epoch=False)
]
train_cfg = dict(max_epochs=max_epochs)
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
