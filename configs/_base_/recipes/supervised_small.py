# supervised.py for a CPU: network, rates and labeled images per step of the first phase of allspark_small.py.
_base_ = [
    '../models/efficientnet-lite0.py',
    '../datasets/own_data.py',
    '../schedules/adamw_two_phases_small.py',
    '../iteration_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(loss_decode=dict(_base_.balanced_loss, _delete_=True)),
)
labeled_views = [*_base_.color, _base_.pack]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(
        labeled=dict(pipeline=[*_base_.load_labeled, *_base_.geometry, *labeled_views]), unlabeled=None
    ),
)
val_dataloader = dict(num_workers=2)
test_dataloader = dict(num_workers=2)
custom_hooks = _base_.custom_hooks[1:]
auto_scale_lr = dict(base_batch_size=8)
