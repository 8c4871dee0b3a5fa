# AllSpark on COCO 1/512 (232 labels), as published: 4 GPUs of 4 + 4 images, MiT-B5, 10 epochs.
# tools/dist_train.sh configs/allspark/coco_1over512.py 4
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/coco.py',
    '../_base_/schedules/sgd_poly_10e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.num_classes = 81
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead',
    bottleneck=dict(in_channels=512, crop_size=_base_.crop_size),
    decoder=segmentor.decode_head,
)
model = dict(_delete_=True, type='allspark_mmseg.AllSpark', segmentor=segmentor)

# our choice: the release has no warm-up for COCO and fails
default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=1))
auto_scale_lr = dict(enable=False, base_batch_size=32)
