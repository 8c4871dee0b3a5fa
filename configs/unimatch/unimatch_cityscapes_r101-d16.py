# UniMatch on Cityscapes, ResNet-101: 4 GPUs, 2 labeled + 2 unlabeled images each, 240 epochs.
# Split 1_16: 186 labeled images. Other rows: python tools/print_row.py unimatch
# tools/dist_train.sh configs/unimatch/unimatch_cityscapes_r101-d16.py 4
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d16_cityscapes.py',
    '../_base_/datasets/cityscapes_unimatch.py',
    '../_base_/schedules/sgd_poly_240e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(
    _delete_=True, type='allspark_mmseg.UniMatch', segmentor=segmentor, mix_source='same_image', threshold=0.0
)

# CutMix pastes from a second crop of the same image, with its own colors
two_crops = dict(
    type='allspark_mmseg.TwoCrops', steps=[*_base_.geometry, _base_.two_strong_views], prefix='mix_'
)
train_dataloader = dict(dataset=dict(unlabeled=dict(pipeline=[*_base_.load, two_crops])))
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(enable=False, base_batch_size=16)
