# CSS for your own data, after a supervised phase. Backbone, batches and schedule are the same as in allspark.py. The head is that of
# CSS, DeepLabv3+ with a branch for representations.
_base_ = [
    '../models/segformer_mit-b2.py',
    '../datasets/own_data.py',
    '../schedules/adamw_two_phases.py',
    '../iteration_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.loss_decode = _base_.balanced_loss
decoder = segmentor.decode_head
segmentor.decode_head = dict(
    type='allspark_mmseg.RepresentationHead',
    in_channels=(decoder.in_channels[0], decoder.in_channels[-1]),
    in_index=(0, 3),
    channels=decoder.channels,
    dilations=(1, 3, 6, 9),  # the deep feature has stride 32, and 8 in the paper
    num_classes=decoder.num_classes,
    norm_cfg=dict(type='GN', num_groups=16),  # four images are few for batch norm after the pooling
    loss_decode=decoder.loss_decode,
)
model = dict(
    _delete_=True,
    type='allspark_mmseg.CSSMix',
    segmentor=segmentor,
    contrast_ramp_down=None,
    ignore_padding=True,
    teacher=dict(momentum=0.004),
    predict_on='teacher',
)

unlabeled_views = [_base_.one_strong_view]
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, *_base_.geometry, *unlabeled_views]))
)
