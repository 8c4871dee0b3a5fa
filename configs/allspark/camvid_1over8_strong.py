# AllSpark with a strong view and a teacher, as UniMatch V2 has them; no class of its own, since the bottleneck is a head.
_base_ = './camvid_1over8.py'

model = dict(
    unlabeled_view='strong_1',
    threshold=0.95,
    # the student's memory is the one that is read
    teacher=dict(buffers={'': 'average', 'bottleneck.memory': 'leave'}),
    predict_on='teacher',
)
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.pipeline = [*_base_.load_unlabeled, _base_.one_strong_view]
train_dataloader = dict(dataset=dict(datasets=[_base_.labeled_dataset, unlabeled_dataset]))
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
