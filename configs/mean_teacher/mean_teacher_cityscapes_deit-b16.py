# Mean Teacher on Cityscapes, DeiT-B: 2 GPUs, 4 labeled + 4 unlabeled images each, 40000 steps.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py mean_teacher
# The Mean Teacher baseline of S4Former.
# tools/dist_train.sh configs/mean_teacher/mean_teacher_cityscapes_deit-b16.py 2
_base_ = '../s4former/s4former_cityscapes_deit-b16.py'

model = dict(
    _delete_=True,
    type='allspark_mmseg.MeanTeacher',
    segmentor=_base_.segmentor,
    teacher=dict(momentum=0.001, warm_up=False),
    labeled_weight=1.0,
    unlabeled_weight=1.0,
    average_over='all',
    ignore_padding=True,
)
