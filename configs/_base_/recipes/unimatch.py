# UniMatch for your own data, after a supervised phase. Network, batches and schedule are the same as in allspark.py.
_base_ = [
    '../models/segformer_mit-b2.py',
    '../datasets/own_data.py',
    '../schedules/adamw_two_phases.py',
    '../iteration_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.loss_decode = _base_.balanced_loss
model = dict(
    _delete_=True,
    type='allspark_mmseg.UniMatch',
    segmentor=segmentor,
    threshold=dict(type='ClassBalanced'),
    teacher=dict(momentum=0.004),
    predict_on='teacher',
)

unlabeled_views = [_base_.two_strong_views]
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, *_base_.geometry, *unlabeled_views]))
)
