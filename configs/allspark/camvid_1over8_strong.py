# AllSpark with a strong view and a teacher, as UniMatch V2 has them; no class of its own, since the bottleneck is a head.
_base_ = './camvid_1over8.py'

model = dict(
    unlabeled_view='strong_1',
    threshold=0.95,
    # the student's memory is the one that is read
    teacher=dict(buffers={'': 'average', 'bottleneck.memory': 'leave'}),
    predict_on='teacher',
)
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
