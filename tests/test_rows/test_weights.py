"""The weights and thresholds of the published configs are those of the papers and releases."""

import pytest

from ..helpers.configs import RunConfig, build_tiny, read_rows

ROWS = read_rows()


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('unimatch/unimatch_voc_r101-d16', dict(strong_weight=0.125, perturbed_weight=0.25, drop_rate=0.5)),
        ('unimatch/unimatch_cityscapes_r101-d16', dict(threshold=0.0)),
        ('fixmatch/fixmatch_coco_xception65', dict(strong_weight=0.5)),
        ('fixmatch/fixmatch_voc_dinov2-b14', dict(strong_weight=0.5, mix_source='batch')),
        (
            'unimatch_v2/unimatch_v2_voc_dinov2-b14',
            dict(strong_weight=0.25, no_dropout_ratio=0.5, mix_source='batch'),
        ),
        ('unimatch_v2/unimatch_v2_cityscapes_dinov2-b14', dict(threshold=0.95, mix_source='batch')),
    ],
)
def test_weights_of_unimatch_and_its_relatives(name, expected):
    run = RunConfig(name)
    model = build_tiny(run)
    expected = (
        dict(threshold=0.95, labeled_weight=0.5, mix_source='same_image', ignore_padding=True) | expected
    )
    assert {key: getattr(model, key) for key in expected} == expected
    cutmix = model.cutmix
    assert (cutmix.prob, cutmix.area, cutmix.aspect) == (0.5, (0.02, 0.4), (0.3, 1 / 0.3))
    if run.dinov2:
        assert (model.teacher.momentum, model.teacher.warm_up) == (0.004, True)
        assert model.teacher.policies == {'': 'average'}


@pytest.mark.parametrize('name', [name for name in ROWS if name.startswith('css_') and '1over16' in name])
def test_weights_of_css(name):
    run = ROWS[name].load()
    model = build_tiny(run)
    assert (model.teacher.momentum, model.teacher.warm_up) == (0.01, True)
    assert model.teacher.policy('running_mean') == 'leave'
    assert (model.threshold, model.weak_threshold, model.contrast_temperature) == (0.97, 0.7, 0.5)
    assert (model.queries, model.negatives, model.prototypes.momentum) == (256, 512, 0.01)
    assert model.mix == 'cutmix'
    assert model.scale_range == dict(voc=(0.5, 1.5), cityscapes=(0.5, 2.0))[run.dataset]
    assert model.contrast_weight == 1.0 and model.ignore_padding
    if name.endswith('baseline'):
        assert (model.hard_threshold, model.contrast_ramp_down) == (0.97, None)
        assert model.teacher_statistics == 'weak'
    else:
        assert (model.hard_threshold, model.contrast_ramp_down) == (0.8, 80000)
        assert model.similarity_temperature == 0.1  # with the release's 0.5 every pixel would be hard
        assert model.teacher_statistics == 'labeled_and_weak'


@pytest.mark.parametrize(
    'name',
    [
        's4former/s4former_voc_deit-b16',
        's4former/s4former_cityscapes_deit-b16',
        'mean_teacher/mean_teacher_voc_deit-b16',
        'mean_teacher/mean_teacher_cityscapes_deit-b16',
        'supervised/supervised_voc_deit-b16',
        'supervised/supervised_cityscapes_deit-b16',
    ],
)
def test_released_config_of_s4former(name, golden):
    run, vectors = RunConfig(name), golden('s4former')
    released = dict(zip(vectors['config.names'].tolist(), vectors['config.ours'].tolist(), strict=True))
    loader = run.cfg.train_dataloader
    assert loader.batch_size == released['samples_per_gpu'] / (2 if run.supervised else 1)
    heads = [run.decoder, *run.segmentor.auxiliary_head]
    assert [head.in_index for head in heads] == [3, 0, 1, 2, 3]
    assert [(head.num_convs, head.up_scale) for head in heads] == [(4, 2), *[(2, 4)] * 4]
    for head in heads:
        assert (head.channels, head.kernel_size, head.dropout_ratio) == (256, 3, 0)
        assert head.norm_cfg.type == 'SyncBN' and not head.align_corners
    assert len(heads) - 1 == released['aux_heads']
    assert {head.loss_decode.loss_weight for head in heads[1:]} == {released['aux_weight']}
    assert run.decoder.loss_decode.loss_weight == released['decode_weight']
    assert tuple(run.segmentor.backbone.img_size) == tuple(run.cfg.crop_size)
    if run.supervised:
        return
    assert loader.sampler.labeled == released['labelled_per_gpu']
    given = set(run.cfg.model)
    model = build_tiny(run)
    assert model.teacher.momentum == pytest.approx(1 - released['ema_momentum'])
    assert model.teacher.warm_up is False
    assert model.threshold == released['threshold']
    assert (model.labeled_weight, model.unlabeled_weight) == (1.0, released['unsup_weight'])
    assert model.average_over == 'all' and model.ramp_up == 0
    assert model.ignore_padding is True  # the release labels padding, too
    if run.method == 's4former':
        assert given == {'type', 'segmentor'}
        assert model.attention_strength == released['attn_mask_weight']
        assert model.shuffle.block_size == 16 * released['block_tokens']
        weights = (model.attention_weight, model.perturbed_weight, model.ranking_weight)
        assert (weights, model.shuffle.prob, model.cutmix.prob) == ((0.5, 0.5, 0.5), 0.5, 0.5)
        assert model.mix_teacher_logits is True
