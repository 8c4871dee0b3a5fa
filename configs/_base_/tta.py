# Test-time augmentation (tools/test.py --tta): the mean of the probabilities at three sizes, each also mirrored.
tta_model = dict(type='SegTTAModel')
tta_views = [
    [dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (0.75, 1.0, 1.25)],
    [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
]
