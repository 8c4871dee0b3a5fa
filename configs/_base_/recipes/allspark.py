# AllSpark for your own data: SegFormer MiT-B2, crops of 513, 4 labeled and 4 unlabeled images per step and process,
# 80 passes over the unlabeled images.
_base_ = [
    '../models/segformer_mit-b2.py',
    '../datasets/own_data.py',
    '../schedules/sgd_poly_80e.py',
    '../default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead',
    bottleneck=dict(in_channels=512, crop_size=_base_.crop_size),
    decoder=segmentor.decode_head,
)
model = dict(_delete_=True, type='allspark_mmseg.AllSpark', segmentor=segmentor)
default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=5))
