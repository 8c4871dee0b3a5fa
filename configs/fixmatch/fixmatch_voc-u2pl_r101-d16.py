# FixMatch on Pascal VOC, ResNet-101: 2 GPUs, 4 labeled + 4 unlabeled images each, 80 epochs.
# Split u2pl_1_16: 662 labeled images. Other rows: python tools/print_row.py fixmatch
# tools/dist_train.sh configs/fixmatch/fixmatch_voc-u2pl_r101-d16.py 2
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d16.py',
    '../_base_/datasets/voc_u2pl_unimatch.py',
    '../_base_/schedules/sgd_poly_80e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(_delete_=True, type='allspark_mmseg.FixMatch', segmentor=segmentor, mix_source='same_image')

# CutMix pastes from a second crop of the same image, with its own colors
two_crops = dict(
    type='allspark_mmseg.TwoCrops', steps=[*_base_.geometry, _base_.one_strong_view], prefix='mix_'
)
train_dataloader = dict(dataset=dict(unlabeled=dict(pipeline=[*_base_.load, two_crops])))
auto_scale_lr = dict(enable=False, base_batch_size=16)
