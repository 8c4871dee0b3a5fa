# Self-training on COCO, MiT-B5: 4 GPUs, 4 labeled + 4 unlabeled images each, 10 epochs.
# Split 1_512: 232 labeled images. Other rows: python tools/print_row.py self_training
# tools/dist_train.sh configs/self_training/self_training_coco_mit-b5.py 4
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/coco.py',
    '../_base_/schedules/sgd_poly_10e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.num_classes = 81
model = dict(_delete_=True, type='allspark_mmseg.SelfTraining', segmentor=segmentor)
auto_scale_lr = dict(enable=False, base_batch_size=32)
