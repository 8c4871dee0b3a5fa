# AllSpark with a model of MMSegmentation: UPerNet on Swin-T. AllSparkHead wraps its decode head.
_base_ = [
    '../_base_/models/upernet_swin-t.py',
    '../_base_/datasets/voc.py',
    '../_base_/schedules/sgd_poly_80e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead',
    bottleneck=dict(in_channels=768, crop_size=_base_.crop_size),
    decoder=segmentor.decode_head,
)
model = dict(_delete_=True, type='allspark_mmseg.AllSpark', segmentor=segmentor)

default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=5))
auto_scale_lr = dict(enable=False, base_batch_size=16)
