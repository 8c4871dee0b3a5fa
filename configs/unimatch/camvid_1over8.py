# UniMatch on CamVid 1/8: tools/dist_train.sh configs/unimatch/camvid_1over8.py 2
_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/camvid_1over8.py',
    '../_base_/schedules/adamw_poly_10e.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
model = dict(_delete_=True, type='allspark_mmseg.UniMatch', segmentor=segmentor)

train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.two_strong_views]))
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
