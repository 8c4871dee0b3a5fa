# AllSpark for your own data: SegFormer MiT-B2, crops of 513, 4 labeled and 4 unlabeled images per step and process.
#
# 1. The network is trained on the labeled images until the validation mIoU stops improving.
# 2. A teacher, the moving average of the network, labels the unlabeled images. The network learns these labels on a strongly augmented
#    view. docs/results.md shows why: the other recipes, from scratch or with other settings, gained less.
_base_ = [
    '../models/segformer_mit-b2.py',
    '../datasets/own_data.py',
    '../schedules/adamw_two_phases.py',
    '../iteration_runtime.py',
]

segmentor = _base_.model
segmentor.data_preprocessor.size = _base_.crop_size
segmentor.decode_head.loss_decode = _base_.balanced_loss
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead',
    bottleneck=dict(in_channels=512, crop_size=_base_.crop_size),
    decoder=segmentor.decode_head,
)
model = dict(
    _delete_=True,
    type='allspark_mmseg.AllSpark',
    segmentor=segmentor,
    unlabeled_view='strong_1',  # the paper learns the pseudo-labels on the weak view itself
    threshold=dict(type='ClassBalanced'),  # the paper keeps all pseudo-labels; rare classes can then vanish
    unlabeled_weight=1.0,  # 0.5 in the paper
    ignore_padding=True,
    # the paper has no teacher; the teacher keeps no memory, because only the student's is read
    teacher=dict(momentum=0.004, buffers={'': 'average', 'bottleneck.memory': 'leave'}),
    predict_on='teacher',
)

unlabeled_views = [_base_.one_strong_view]
train_dataloader = dict(
    dataset=dict(unlabeled=dict(pipeline=[*_base_.load_unlabeled, *_base_.geometry, *unlabeled_views]))
)
# labeled images attend to the memory after this many iterations of the second phase
default_hooks = dict(memory_warm_up=dict(type='allspark_mmseg.MemoryWarmUpHook', iters=500))
