# AllSpark on the demo data: 128 labeled and 872 unlabeled images, 8 + 8 per step, after 500 supervised steps.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/demo.py',
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
    threshold=0.8,
    unlabeled_weight=1.0,
    # only the student's memory is read
    teacher=dict(momentum=0.02, buffers={'': 'average', 'bottleneck.memory': 'leave'}),
    predict_on='teacher',
)
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
default_hooks = dict(
    checkpoint=dict(interval=100, save_best=None),
    memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', iters=100),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)

# 500 + 400 iterations, so that the demo takes less than eight minutes on 2 CPU cores
max_iters = 400
param_scheduler = [dict(_base_.param_scheduler[0], end=max_iters)]
train_cfg = dict(max_iters=max_iters, val_interval=100)
custom_hooks = [dict(_base_.custom_hooks[0], max_iters=500, val_interval=250), *_base_.custom_hooks[1:]]
