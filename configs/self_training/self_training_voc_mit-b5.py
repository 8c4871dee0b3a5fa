# Self-training on Pascal VOC, MiT-B5: 4 GPUs, 2 labeled + 2 unlabeled images each, 80 epochs.
# Split 1_16: 662 labeled images. Other rows: python tools/print_row.py self_training
# tools/dist_train.sh configs/self_training/self_training_voc_mit-b5.py 4
_base_ = [
    '../_base_/models/segformer_mit-b5.py',
    '../_base_/datasets/voc.py',
    '../_base_/schedules/sgd_poly_80e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(_delete_=True, type='allspark_mmseg.SelfTraining', segmentor=segmentor)
auto_scale_lr = dict(enable=False, base_batch_size=16)
