"""S4Former's protocol and its baselines': what the configs say, in the released numbers."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmseg.registry import DATASETS, MODELS

from allspark_mmseg.registry import PARAM_SCHEDULERS

from .test_configs import CONFIGS, LEAVES, Leaf
from .test_protocols import make_tiny, redirect, stand_ins  # noqa: F401 (a fixture)

ROWS = [*(f'voc_{labels}' for labels in (92, 183, 366, 732, 1464)), 'cityscapes_1over16', 'cityscapes_1over8']
NAMES = [
    *(f's4former/{row}' for row in ROWS),
    *(f'{method}/{row}_deit-b16' for method in ('mean_teacher', 'supervised') for row in ROWS),
]
CROPS = dict(voc=512, cityscapes=768)
STEPS = dict(voc=80000, cityscapes=40000)


@pytest.fixture(scope='module', params=NAMES)
def leaf(request) -> Leaf:
    return Leaf(CONFIGS / f'{request.param}.py')


def test_every_row_has_a_config():
    found = {leaf for leaf in map(Leaf, LEAVES) if leaf.deit}
    assert {str(Path(leaf.name).with_suffix('')) for leaf in found} == set(NAMES)


def test_numbers(leaf, golden):
    vectors = golden('s4former')
    semi = leaf.method != 'supervised'
    released = dict(zip(vectors['config.names'].tolist(), vectors['config.ours'].tolist(), strict=True))
    loader, model = leaf.cfg.train_dataloader, leaf.cfg.model
    assert loader.batch_size == released['samples_per_gpu'] / (1 if semi else 2)
    if semi:
        labeled = released['labeled_per_gpu']
        assert (loader.sampler.labeled, loader.sampler.unlabeled) == (labeled, labeled)
        assert loader.sampler.epoch_length * leaf.cfg.train_cfg.max_epochs == STEPS[leaf.dataset]
        built = built_tiny(leaf)
        assert built.teacher.momentum == pytest.approx(1 - released['ema_momentum'])
        assert built.teacher.warm_up is False
        assert built.threshold == released['threshold']
        assert (built.labeled_weight, built.unlabeled_weight) == (1.0, released['unsup_weight'])
        assert built.average_over == 'all' and built.ramp_up == 0
        assert built.ignore_padding is True  # the release's false pseudo-labels are switched off
    else:
        assert leaf.cfg.train_cfg.max_iters == STEPS[leaf.dataset]
    if leaf.method == 's4former':
        assert set(model) == {'type', 'segmentor'}
        assert built.attention_strength == released['attn_mask_weight']
        assert built.shuffle.block_size == 16 * released['block_tokens']
        weights = (built.attention_weight, built.perturbed_weight, built.ranking_weight)
        assert (weights, built.shuffle.prob, built.cutmix.prob) == ((0.5, 0.5, 0.5), 0.5, 0.5)
        assert built.mix_teacher_logits is True
    heads = leaf.segmentor.auxiliary_head
    assert len(heads) == released['aux_heads']
    assert {head.loss_decode.loss_weight for head in heads} == {released['aux_weight']}
    assert leaf.decoder.loss_decode.loss_weight == released['decode_weight']
    assert tuple(leaf.cfg.crop_size) == (CROPS[leaf.dataset],) * 2
    assert tuple(leaf.segmentor.backbone.img_size) == tuple(leaf.cfg.crop_size)


def built_tiny(leaf: Leaf) -> torch.nn.Module:
    model = copy.deepcopy(leaf.cfg.model)
    given = set(model)
    make_tiny(model)
    return MODELS.build({key: value for key, value in model.items() if key in given})


def test_network(leaf):
    backbone, heads = leaf.segmentor.backbone, [leaf.decoder, *leaf.segmentor.auxiliary_head]
    assert backbone.out_indices == (4, 7, 9, 11) and backbone.patch_bias
    assert [head.in_index for head in heads] == [3, 0, 1, 2, 3]
    assert [(head.num_convs, head.up_scale) for head in heads] == [(4, 2), *[(2, 4)] * 4]
    for head in heads:
        assert (head.channels, head.kernel_size, head.dropout_ratio) == (256, 3, 0)
        assert head.norm_cfg.type == 'SyncBN' and not head.align_corners
        assert not head.loss_decode.get('avg_non_ignore', False)
    test = dict(mode='slide', crop_size=(768, 768), stride=(512, 512))
    assert leaf.segmentor.test_cfg == (test if leaf.dataset == 'cityscapes' else dict(mode='whole'))


def test_learning_rates(leaf, golden):
    vectors = golden('s4former')
    released = dict(zip(vectors['config.names'].tolist(), vectors['config.ours'].tolist(), strict=True))
    sgd = dict(type='SGD', lr=released['lr'], momentum=released['sgd_momentum'], weight_decay=0.0)
    assert leaf.cfg.optim_wrapper.optimizer == sgd
    model = built_tiny(leaf)
    optimizer = build_optim_wrapper(model, leaf.cfg.optim_wrapper).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            times = released['head_lr_mult'] if 'head' in names[id(parameter)] else 1
            assert group['lr'] == pytest.approx(released['lr'] * times)
    rates = [released['lr'], released['lr'] * released['head_lr_mult']]
    optimizer = torch.optim.SGD([dict(params=[torch.zeros(1)], lr=rate) for rate in rates])
    (config,) = leaf.cfg.param_scheduler
    scheduler = PARAM_SCHEDULERS.build(dict(config, optimizer=optimizer))
    floor, total = released['min_lr'], STEPS[leaf.dataset] + 1
    assert leaf.dataset != 'voc' or total == released['max_iters']
    for step in range(2001):
        if step % 500 == 0:
            factor = (1 - step / total) ** released['poly_power']
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                assert group['lr'] == pytest.approx((rate - floor) * factor + floor, rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    'name', ['s4former/voc_92', 's4former/cityscapes_1over16', 'supervised/voc_92_deit-b16']
)
def test_pipelines_on_the_real_layout(name, stand_ins):  # noqa: F811
    leaf = Leaf(CONFIGS / f'{name}.py')
    redirect(leaf.cfg, stand_ins[leaf.dataset])
    dataset = DATASETS.build(leaf.cfg.train_dataloader.dataset)
    preprocessor = MODELS.build(
        dict(leaf.segmentor.data_preprocessor, type='allspark_mmseg.MultiViewSegDataPreProcessor')
    )
    crop = tuple(leaf.cfg.crop_size)
    validation = DATASETS.build(leaf.cfg.val_dataloader.dataset)
    image = validation[0]['inputs']
    assert min(image.shape[1:]) == (512 if leaf.dataset == 'voc' else 96)
    assert validation[0]['data_samples'].gt_sem_seg.shape == validation[0]['data_samples'].ori_shape
    if leaf.method == 'supervised':
        batch = preprocessor(pseudo_collate([dataset[0]]), training=True)
        assert batch['inputs'].shape == (1, 3, *crop)
        return
    seen = set()
    for i in range(20):
        batch = preprocessor(pseudo_collate([dataset[i % 2], dataset[2 + i % 6]]), training=True)
        assert {view: x.shape for view, x in batch['inputs'].items()} == dict.fromkeys(
            ('labeled', 'weak', 'strong_1'), (1, 3, *crop)
        )
        weak, strong = (batch['data_samples'][view][0] for view in ('weak', 'strong_1'))
        padding = weak.gt_sem_seg.data[0] == 255
        assert torch.equal(padding, strong.gt_sem_seg.data[0] == 255)
        assert set(weak.gt_sem_seg.data.unique().tolist()) <= {0, 255}, 'the true masks are not looked at'
        for view in ('weak', 'strong_1'):
            # padded after normalization
            assert (batch['inputs'][view][0][:, padding] == 0).all()
        seen.add(bool(padding.any()))
    if leaf.dataset == 'voc':
        assert seen == {True, False}
