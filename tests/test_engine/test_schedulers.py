"""The learning rate of every step, in real runs, against the formula of the released scripts."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import PARAM_SCHEDULERS

from ..helpers.configs import ROOT

SCHEDULE = ROOT / 'configs' / '_base_' / 'schedules' / 'sgd_poly_80e.py'
RATES = (0.001, 0.01)  # of the backbone, of everything else


def released(step: int, steps: int, start: float = 1.0) -> float:
    """The rate that 0-based ``step`` is taken at: its script sets it after the step before."""
    done = step - 1
    return start if done < 0 else start * (1 - done / steps) ** 0.9


class Probe(BaseModel):
    """Two parameters, one of them in a head."""

    def __init__(self, data_preprocessor=None):
        super().__init__()
        self.backbone = torch.nn.Linear(1, 1)
        self.decode_head = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.decode_head(self.backbone(torch.stack(inputs))).square().mean())


class Numbers(torch.utils.data.Dataset):
    def __init__(self, length: int):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


class Recorder(Hook):
    """Note the rates that each step is taken at; break off before one of them."""

    def __init__(self, stop: int | None = None):
        self.rates = []
        self.stop = stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise InterruptedError
        self.rates.append(tuple(group['lr'] for group in runner.optim_wrapper.param_groups))


def run_config(work_dir: Path, *, epochs: int, length: int, scheduler: dict | None = None) -> Config:
    """The repository's SGD schedule on a network of four numbers."""
    cfg = Config.fromfile(SCHEDULE)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs + 1)
    cfg.pop('val_cfg')
    cfg.pop('test_cfg')
    cfg.param_scheduler[0].end = epochs
    if scheduler:
        cfg.param_scheduler = [ConfigDict(scheduler)]
    cfg.merge_from_dict(
        dict(
            default_scope='mmseg',
            model=dict(type=Probe),
            train_dataloader=dict(
                batch_size=1,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type=Numbers, length=length),
            ),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1), logger=None, timer=None),
            work_dir=str(work_dir),
            experiment_name=work_dir.name,
            log_level='ERROR',
        )
    )
    return cfg


@pytest.fixture
def rates_of(runner_of):
    """Train, and return the rates of all steps: [(backbone's, head's), ...]."""

    def train(cfg: Config, stop: int | None = None) -> list[tuple[float, float]]:
        recorder = Recorder(stop)
        runner = runner_of(cfg)
        runner.register_hook(recorder)
        if stop is None:
            runner.train()
        else:
            with pytest.raises(InterruptedError):
                runner.train()
        # MMEngine makes a group of each tensor: weight and bias of the backbone, then of the head (and one
        # more, of the plain rate, for its log)
        assert all(a == b and c == d for a, b, c, d, *_ in recorder.rates)
        return [(rates[0], rates[2]) for rates in recorder.rates]

    return train


def assert_as_released(rates: list[tuple[float, float]], steps: int, first: int = 0) -> None:
    for step, pair in enumerate(rates, first):
        expected = [released(step, steps, start) for start in RATES]
        assert list(pair) == pytest.approx(expected, rel=1e-11), f'step {step} of {steps}'


@pytest.mark.parametrize('length, epochs', [(1, 1), (1, 2), (1, 7), (4, 1), (5, 3), (3, 11)])
def test_every_step_of_a_run(tmp_path, rates_of, length, epochs):
    steps = length * epochs
    rates = rates_of(run_config(tmp_path, epochs=epochs, length=length))
    assert len(rates) == steps
    assert_as_released(rates, steps)
    assert all(pair == RATES for pair in rates[:2])  # steps 0 and 1, to the last digit
    last = (1 - max(steps - 2, 0) / steps) ** 0.9
    assert rates[-1] == pytest.approx([start * last for start in RATES])
    assert min(rates[-1]) > 0


@pytest.mark.parametrize('end', [dict(end=12), dict()])
def test_counted_in_iterations(tmp_path, rates_of, end):
    """``end`` left out is the length of the training."""
    scheduler = dict(type='allspark_mmseg.PostStepPolyLR', power=0.9, by_epoch=False, **end)
    assert_as_released(rates_of(run_config(tmp_path, epochs=3, length=4, scheduler=scheduler)), 12)


def test_the_end_of_an_epoch_schedule_is_the_training_s(tmp_path, rates_of):
    cfg = run_config(tmp_path, epochs=3, length=4)
    del cfg.param_scheduler[0]['end'], cfg.param_scheduler[0]['begin']
    assert_as_released(rates_of(cfg), 12)


@pytest.mark.parametrize('stop', [4, 7, 9])
def test_across_a_resume(tmp_path, rates_of, stop):
    cfg = run_config(tmp_path, epochs=4, length=3)
    assert_as_released(rates_of(cfg, stop), 12)
    again = run_config(tmp_path, epochs=4, length=3)
    again.resume = True
    again.experiment_name += '_resumed'
    first = stop // 3 * 3  # the last whole epoch
    rates = rates_of(again)
    assert len(rates) == 12 - first
    assert_as_released(rates, 12, first)


def steps_of(scheduler: dict, steps: int, **build_args) -> list[list[float]]:
    """The rates of plain PyTorch steps; the state goes through a fresh scheduler in the middle."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in RATES]
    groups = [dict(params=[value], lr=rate) for value, rate in zip(parameters, RATES, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optimizer, **build_args))
    rates = []
    for step in range(steps):
        if step == steps // 2:
            states = optimizer.state_dict(), schedule.state_dict()
            optimizer = torch.optim.SGD([dict(params=[value]) for value in parameters], lr=1.0)
            optimizer.load_state_dict(states[0])
            schedule = PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optimizer, **build_args))
            schedule.load_state_dict(states[1])
        rates.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize('steps', [1, 2, 3, 17, 2000])
def test_with_plain_pytorch_and_through_a_saved_state(steps):
    rates = steps_of(dict(type='allspark_mmseg.PostStepPolyLR', power=0.9, end=steps, by_epoch=False), steps)
    assert_as_released(rates, steps)


def test_a_long_training_does_not_wear_the_recursion_out():
    """MMEngine multiplies the rate by a factor each step."""
    steps = 20 * 1311
    scheduler = dict(
        type='allspark_mmseg.PostStepPolyLR', power=0.9, end=20, by_epoch=True, convert_to_iter_based=True
    )
    rates = steps_of(scheduler, steps, epoch_length=1311)
    for step in (0, 1, 2, 1000, steps // 2, steps - 1):
        expected = [released(step, steps, start) for start in RATES]
        assert rates[step] == pytest.approx(expected, rel=1e-9)


def test_begin_eta_min_and_power_are_kept():
    scheduler = dict(
        type='allspark_mmseg.PostStepPolyLR', power=2.0, eta_min=1e-4, begin=3, end=13, by_epoch=False
    )
    for step, rates in enumerate(steps_of(scheduler, 13)):
        left = 1 - max(step - 1 - 3, 0) / 10
        assert rates == pytest.approx([1e-4 + (start - 1e-4) * left**2 for start in RATES])


def test_mmengine_s_own_differs():
    """It takes the last step at 0, and lags nothing."""
    rates = steps_of(dict(type='PolyLR', power=0.9, end=10, by_epoch=False), 10)
    assert rates[1][0] < RATES[0]
    assert rates[-1] == [0, 0]
    shifted = steps_of(dict(type='PolyLR', power=0.9, begin=1, end=12, by_epoch=False), 10)
    assert_as_released(shifted, 10)


def test_a_rate_that_changes_once_an_epoch_is_refused():
    with pytest.raises(ValueError, match='convert_to_iter_based=True'):
        steps_of(dict(type='allspark_mmseg.PostStepPolyLR', end=10), 1)
