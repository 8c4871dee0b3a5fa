# adamw_poly_10e.py with UniMatch V2's rates for DINOv2 and its decoder (x 40), as published.
_base_ = './adamw_poly_10e.py'

optim_wrapper = dict(optimizer=dict(lr=5e-6), paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=40.0)}))
