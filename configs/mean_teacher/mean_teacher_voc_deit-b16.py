# Mean Teacher on Pascal VOC, DeiT-B: 2 GPUs, 4 labeled + 4 unlabeled images each, 80000 steps.
# Split 92: 92 labeled images. Other rows: python tools/print_row.py mean_teacher
# The Mean Teacher baseline of S4Former. Its released config builds no unsupervised loss.
# tools/dist_train.sh configs/mean_teacher/mean_teacher_voc_deit-b16.py 2
_base_ = '../s4former/s4former_voc_deit-b16.py'

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
