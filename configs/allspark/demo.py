# AllSpark on the demo data, used by "make demo": 720 steps with 8 labeled and 4 unlabeled images.
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/demo.py',
    '../_base_/schedules/adamw_poly_10e.py',
    '../_base_/default_runtime.py',
]

max_epochs = 6
segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead',
    bottleneck=dict(in_channels=320, channels=64, crop_size=_base_.crop_size),
    decoder=segmentor.decode_head,
)
model = dict(_delete_=True, type='allspark_mmseg.AllSpark', segmentor=segmentor)
param_scheduler = [dict(_base_.param_scheduler[0], end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs, val_interval=2)

default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=1))
custom_hooks = [dict(type='allspark_mmseg.PseudoLabelVisualizationHook', interval=100)]
auto_scale_lr = dict(enable=False, base_batch_size=12)
