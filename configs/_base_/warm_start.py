# Add this file to the bases of a semi-supervised config to train on the labeled images first:
#   _base_ = ['../allspark/voc_1over16.py', '../_base_/warm_start.py']
# train_cfg, optim_wrapper and param_scheduler of the config are then those of the second phase.
custom_hooks = [
    dict(
        type='allspark_mmseg.WarmStartHook',
        max_iters=2000,  # at most; the best of the validations is the start of the second phase
        val_interval=200,
        patience=5,  # validations without a new best value
        ramp_up=100,  # iterations until the unlabeled images count fully
        give_up=8,  # validations below the supervised score that end the second phase
    )
]
