# UniMatch on COCO, Xception-65: 4 GPUs, 2 labeled + 2 unlabeled images each, 30 epochs.
# Split 1_512: 232 labeled images. Other rows: python tools/print_row.py unimatch
# tools/dist_train.sh configs/unimatch/unimatch_coco_xception65.py 4
_base_ = [
    '../_base_/models/deeplabv3plus_xception65.py',
    '../_base_/datasets/coco_unimatch.py',
    '../_base_/schedules/sgd_poly_30e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.num_classes = 81
model = dict(_delete_=True, type='allspark_mmseg.UniMatch', segmentor=segmentor, mix_source='same_image')

# CutMix pastes from a second crop of the same image, with its own colors
two_crops = dict(
    type='allspark_mmseg.TwoCrops', steps=[*_base_.geometry, _base_.two_strong_views], prefix='mix_'
)
train_dataloader = dict(dataset=dict(unlabeled=dict(pipeline=[*_base_.load, two_crops])))
auto_scale_lr = dict(enable=False, base_batch_size=16)
