"""Every published row of the metafiles: optimizer, learning rates and parameter groups."""

import json

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from allspark_mmseg.registry import PARAM_SCHEDULERS

from ..helpers.configs import PUBLISHED, RunConfig, build_tiny, read_rows

ROWS = read_rows()


@pytest.fixture(scope='module', params=ROWS)
def row(request):
    return ROWS[request.param]


@pytest.fixture(scope='module')
def run(row) -> RunConfig:
    return row.peek()


def test_optimizer_and_schedule(row, run):
    lr = row.meta['Learning Rate']
    decay = {'css': 5e-4}.get(run.method, 0.0 if run.deit else 1e-4)
    sgd = dict(type='SGD', lr=lr, momentum=0.9, weight_decay=decay)
    if run.method == 'css':
        sgd['nesterov'] = True
    adamw = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.01)
    assert run.cfg.optim_wrapper.optimizer == {'SGD': sgd, 'AdamW': adamw}[row.meta['Optimizer']]
    assert run.cfg.optim_wrapper.get('clip_grad') is None
    factor = row.meta['Head Learning Rate Factor']
    custom = (run.cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys', {})
    assert custom == ({} if factor == 1 else {'head': dict(lr_mult=float(factor))})
    (schedule,) = run.cfg.param_scheduler
    post_step = row.meta['Schedule'].endswith('after the step')
    assert schedule.type == ('allspark_mmseg.PostStepPolyLR' if post_step else 'PolyLR')
    assert (schedule.power, schedule.eta_min) == (0.9, 1e-4 if run.deit else 0.0)


# the schedules that differ, each with one of its rows
SCHEDULES = {}
for _row in ROWS.values():
    _run = _row.peek()
    _key = json.dumps(
        [_run.cfg.param_scheduler, _row.meta['Learning Rate'], _row.meta['Head Learning Rate Factor']],
        default=str,
    )
    SCHEDULES.setdefault(_key, _row.name)


def rates(run, factor: float, per_epoch: int, steps: list[int]) -> dict[int, list[float]]:
    """Learning rates (backbone, head) at some steps, by the config's own scheduler."""
    lr = run.cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD(
        [dict(params=[torch.zeros(1)], lr=lr), dict(params=[torch.zeros(1)], lr=lr * factor)]
    )
    (config,) = run.cfg.param_scheduler
    arguments = {key: v for key, v in config.items() if key not in ('type', 'convert_to_iter_based')}
    kind = PARAM_SCHEDULERS.get(config.type)
    if config.by_epoch:
        scheduler = kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=per_epoch, **arguments)
    else:
        scheduler = kind(optimizer, **arguments)
    at_steps = {}
    for step in range(max(steps) + 1):
        if step in steps:
            at_steps[step] = [group['lr'] for group in optimizer.param_groups]
        optimizer.step()
        scheduler.step()
    return at_steps


@pytest.mark.parametrize('name', SCHEDULES.values())
def test_learning_rates(name, golden):
    row = ROWS[name]
    run, lr, factor = row.load(), row.meta['Learning Rate'], row.meta['Head Learning Rate Factor']
    epochs, total = row.meta['Epochs'], row.meta['Iterations']
    per_epoch = total // epochs
    if row.meta['Schedule'].endswith('after the step'):
        tried = [(per_epoch, [0, 1, 2])]
        # the last step of the whole length takes seconds to reach: epochs of 3 steps show the same
        tried.append((3, [3 * epochs - 1]) if run.by_epoch else (per_epoch, [total - 1]))
        for length, steps in tried:
            for step, (backbone, head) in rates(run, factor, length, steps).items():
                expected = lr * (1 - max(step - 1, 0) / (epochs * length)) ** 0.9
                assert backbone == pytest.approx(expected, rel=1e-7), step
                assert head == pytest.approx(factor * expected, rel=1e-7), step
    elif run.method == 'css':
        vectors = golden('css')
        released = dict(zip(*(vectors[f'poly.{key}'].tolist() for key in ('iterations', 'lr')), strict=True))
        for step, rate in released.items():
            assert rate == pytest.approx(max(6.4e-3 * (1 - step / 80000) ** 0.9, 1e-4), rel=1e-6)
        steps = [step for step in released if step <= 100]
        for step, (rate, _) in rates(run, 1, per_epoch, steps).items():
            assert rate == pytest.approx(released[step], rel=1e-6)
    else:  # S4Former's, down to 1e-4 for heads, too, in one step more
        vectors = golden('s4former')
        config = dict(zip(vectors['config.names'].tolist(), vectors['config.ours'].tolist(), strict=True))
        assert (lr, factor) == (config['lr'], config['head_lr_mult'])
        assert run.dataset != 'voc' or total + 1 == config['max_iters']
        for step, found in rates(run, factor, per_epoch, [0, 500, 1000, 1500, 2000]).items():
            share = (1 - step / (total + 1)) ** config['poly_power']
            for group, rate in zip(found, (lr, lr * factor), strict=True):
                expected = (rate - config['min_lr']) * share + config['min_lr']
                assert group == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    'name',
    [
        *(f'allspark/{row}' for row in ('voc_1over16', 'cityscapes_1over16', 'coco_1over512')),
        *(f'{m}/{m}_{data}_mit-b5' for m in ('self_training', 'supervised') for data in PUBLISHED),
        'unimatch/unimatch_voc_r101-d16',
        'unimatch/unimatch_cityscapes_r101-d16',
        'unimatch/unimatch_coco_xception65',
        'supervised/supervised_cityscapes_r101-d16',
        'unimatch_v2/unimatch_v2_voc_dinov2-b14',
        'supervised/supervised_voc_dinov2-b14',
        's4former/s4former_voc_deit-b16',
        'css/css_voc_r101-d8',
    ],
)
def test_parameter_groups(name):
    """The backbone has one rate and all else its multiple; norms and biases have weight decay, too."""
    row = next(row for row in ROWS.values() if row.config == name)
    run = row.load()
    model = build_tiny(run)
    optimizer = build_optim_wrapper(model, run.cfg.optim_wrapper).optimizer
    trained = [(key, parameter) for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(key.startswith('teacher') for key, p in model.named_parameters() if not p.requires_grad)
    names = {id(parameter): key for key, parameter in trained}
    seen = []
    for group in optimizer.param_groups:
        assert group['weight_decay'] == run.cfg.optim_wrapper.optimizer.weight_decay
        assert group.get('momentum', group.get('betas')) == ((0.9, 0.999) if run.dinov2 else 0.9)
        for parameter in filter(lambda each: each.requires_grad, group['params']):
            key = names[id(parameter)]
            seen.append(key)
            factor = 1 if 'backbone' in key else row.meta['Head Learning Rate Factor']
            assert group['lr'] == pytest.approx(row.meta['Learning Rate'] * factor), key
    assert sorted(seen) == sorted(names.values())
