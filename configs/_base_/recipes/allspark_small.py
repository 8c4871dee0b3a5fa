# allspark.py for a CPU: EfficientNet-Lite0 with ImageNet weights from a pip package, 8 labeled and 8 unlabeled images per step,
# 1000 iterations in each phase.
_base_ = [
    '../models/efficientnet-lite0.py',
    '../datasets/own_data.py',
    '../schedules/adamw_two_phases_small.py',
    '../iteration_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.loss_decode = _base_.balanced_loss
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
    threshold=dict(type='ClassBalanced'),
    unlabeled_weight=1.0,
    ignore_padding=True,
    # only the student's memory is read
    teacher=dict(momentum=0.02, buffers={'': 'average', 'bottleneck.memory': 'leave'}),
    predict_on='teacher',
)

unlabeled_views = [_base_.one_strong_view]
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    sampler=dict(labeled=8, unlabeled=8),
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, *_base_.geometry, *unlabeled_views])),
)
val_dataloader = dict(num_workers=2)
test_dataloader = dict(num_workers=2)
default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', iters=100))
auto_scale_lr = dict(base_batch_size=16)
