# AllSpark on the magnetic tiles with 36 labeled images, 8 + 8 per step, after 1000 supervised steps.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/magnetic_tile_36.py',
    '../_base_/schedules/adamw_two_phases_small.py',
    '../_base_/iteration_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.num_classes = len(_base_.metainfo.classes)
segmentor.decode_head.loss_decode = _base_.supervised_loss
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead',
    bottleneck=dict(in_channels=320, channels=64, crop_size=_base_.crop_size),
    decoder=segmentor.decode_head,
)
model = dict(
    _delete_=True,
    type='allspark_mmseg.AllSpark',
    segmentor=segmentor,
    unlabeled_view='strong_1',
    threshold=0.95,  # most unlabeled images have no defect, so only confident pseudo-labels
    unlabeled_weight=1.0,
    # only the student's memory is read
    teacher=dict(momentum=0.02, buffers={'': 'average', 'bottleneck.memory': 'leave'}),
    predict_on='teacher',
)
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', iters=100))
auto_scale_lr = dict(enable=False, base_batch_size=16)
