# AllSpark on CamVid 1/8 with a pre-trained backbone: tools/dist_train.sh configs/allspark/camvid_1over8.py 2
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/camvid_1over8.py',
    '../_base_/schedules/adamw_poly_10e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead',
    bottleneck=dict(in_channels=320, crop_size=_base_.crop_size),
    decoder=segmentor.decode_head,
)
model = dict(_delete_=True, type='allspark_mmseg.AllSpark', segmentor=segmentor)

default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=2))
auto_scale_lr = dict(enable=False, base_batch_size=8)
