# Supervised training on your own labeled images: network, rates and labeled images per step of the first phase of allspark.py.
# The other recipes contain this phase, and compare with it.
_base_ = [
    '../models/segformer_mit-b2.py',
    '../datasets/own_data.py',
    '../schedules/adamw_two_phases.py',
    '../iteration_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(loss_decode=dict(_base_.balanced_loss, _delete_=True)),
)
labeled_views = [*_base_.color, _base_.pack]
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(
        labeled=dict(pipeline=[*_base_.load_labeled, *_base_.geometry, *labeled_views]), unlabeled=None
    ),
)
custom_hooks = []
auto_scale_lr = dict(base_batch_size=4)
