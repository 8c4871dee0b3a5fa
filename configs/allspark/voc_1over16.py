# AllSpark on Pascal VOC, augmented 1/16 (662 labels), as published: 4 GPUs of 2 + 2 images, MiT-B5, 80 epochs.
# tools/dist_train.sh configs/allspark/voc_1over16.py 4
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/voc.py',
    '../_base_/schedules/sgd_poly_80e.py',
    '../_base_/default_runtime.py',
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
auto_scale_lr = dict(enable=False, base_batch_size=16)
