# AllSpark with the strong view and the teacher of UniMatch V2.
_base_ = './camvid_1over8.py'

model = dict(
    unlabeled_view='strong_1',
    threshold=0.95,
    # only the student's memory is read
    teacher=dict(buffers={'': 'average', 'bottleneck.memory': 'leave'}),
    predict_on='teacher',
)
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
