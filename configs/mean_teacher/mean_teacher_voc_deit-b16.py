# S4Former's Mean Teacher baseline on Pascal VOC, 92 labels, as its release means it (there, it builds no loss).
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
