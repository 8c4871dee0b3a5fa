"""Every published row of the metafiles: networks, losses, inference and arguments of the method."""

import pytest

from ..helpers.configs import RunConfig, read_rows

ROWS = read_rows()
LOSSES = {
    'cross-entropy': dict(type='CrossEntropyLoss', avg_non_ignore=True),
    'OHEM': dict(type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000),
}
# backbone -> arguments of the backbone and of the decoder
NETWORKS = {
    'MiT-B4': (dict(embed_dims=64, num_layers=[3, 8, 27, 3], drop_path_rate=0.1), dict(channels=768)),
    'MiT-B5': (dict(embed_dims=64, num_layers=[3, 6, 40, 3], drop_path_rate=0.1), dict(channels=768)),
    'ResNet': (
        dict(stem_channels=128, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=True),
        dict(channels=256, c1_channels=48, dilations=(1, 6, 12, 18), align_corners=True),
    ),
    'Xception-65': ({}, dict(channels=256, c1_channels=48, dilations=(1, 6, 12, 18), align_corners=True)),
    'DINOv2-S': (
        dict(arch='small'),
        dict(channels=64, post_process_channels=[48, 96, 192, 384], align_corners=True),
    ),
    'DINOv2-B': (
        dict(arch='base'),
        dict(channels=128, post_process_channels=[96, 192, 384, 768], align_corners=True),
    ),
    'DINOv2-L': (
        dict(arch='large'),
        dict(channels=256, post_process_channels=[256, 512, 1024, 1024], align_corners=True),
    ),
    'DeiT-B': (
        dict(out_indices=(4, 7, 9, 11), patch_bias=True),
        dict(num_convs=4, up_scale=2, channels=256, kernel_size=3, dropout_ratio=0, align_corners=False),
    ),
}
NETWORKS |= {
    f'ResNet-{depth}': (NETWORKS['ResNet'][0] | dict(depth=depth), NETWORKS['ResNet'][1])
    for depth in (50, 101)
}
CSS_NETWORK = (
    dict(depth=101, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True),
    dict(
        channels=256,
        c1_channels=48,
        representation_channels=256,
        dilations=(1, 12, 24, 36),
        align_corners=True,
    ),
)


@pytest.fixture(scope='module', params=ROWS)
def row(request):
    return ROWS[request.param]


@pytest.fixture(scope='module')
def run(row) -> RunConfig:
    return row.peek()


def test_network_of_a_row(row, run):
    check_network_and_losses(row, run)
    check_inference(run)
    if not run.supervised:
        check_arguments_of_the_method(row, run)


def check_network_and_losses(row, run):
    networks = CSS_NETWORK if run.method == 'css' else NETWORKS[row.meta['Backbone']]
    for arguments, expected in zip((run.segmentor.backbone, run.decoder), networks, strict=True):
        assert {key: arguments[key] for key in expected} == expected
    if run.cnn:
        norms = [part.norm_cfg.type for part in (run.segmentor.backbone, run.decoder)]
        assert norms == ['SyncBN', 'SyncBN']
    if run.method == 'css':
        assert not run.segmentor.backbone.get('deep_stem')
    if run.deit:
        assert not run.decoder.loss_decode.get('avg_non_ignore', False), 'S4Former averages over all pixels'
    else:
        assert run.decoder.loss_decode == LOSSES[row.meta['Loss']]
    normalization = run.segmentor.data_preprocessor
    assert normalization.mean == [123.675, 116.28, 103.53]
    assert normalization.std == [58.395, 57.12, 57.375]
    assert normalization.bgr_to_rgb is True


def check_inference(run):
    windows = dict(mode='slide_probs_clipped', crop_size=(801, 801), stride=(534, 534))
    if run.method == 'css':
        expected = dict(mode='whole')
    elif run.dinov2:
        windows = dict(mode='slide_probs_shifted', crop_size=(798, 798), stride=(532, 532))
        expected = windows if run.dataset == 'cityscapes' else dict(mode='whole', size_multiple=14)
    elif run.deit:
        windows = dict(mode='slide', crop_size=(768, 768), stride=(512, 512))
        expected = windows if run.dataset == 'cityscapes' else dict(mode='whole')
    else:
        expected = windows if run.dataset == 'cityscapes' else dict(mode='whole')
    assert run.segmentor.test_cfg == expected


def check_arguments_of_the_method(row, run):
    """All other arguments are defaults; test_weights_of_the_methods compares them with the papers."""
    expected = {}
    if run.method == 'css':
        expected = dict(predict_on='teacher', ignore_padding=True)
        expected['contrast_ramp_down'] = None if row.name.endswith('_baseline') else 80000
        expected |= dict(scale_range=(0.5, 2.0)) if run.dataset == 'cityscapes' else {}
    elif run.method == 'mean_teacher' and run.deit:
        expected = dict(
            teacher=dict(momentum=0.001, warm_up=False),
            labeled_weight=1.0,
            unlabeled_weight=1.0,
            average_over='all',
            ignore_padding=True,
        )
    elif run.method == 'mean_teacher':
        expected = dict(predict_on='teacher', ignore_padding=True)
    elif run.dinov2:
        expected = dict(predict_on='teacher', teacher={})
    elif run.cnn:
        expected = dict(mix_source='same_image')
        expected |= dict(threshold=0.0) if run.dataset == 'cityscapes' else {}
    arguments = {key: v for key, v in run.cfg.model.items() if key not in ('type', 'segmentor')}
    assert arguments == expected
