"""A supervised phase before the semi-supervised one: phases, weights, schedules, resuming, and bad input."""

import copy
import json
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmseg.apis import init_model

from allspark_mmseg.engine.scoreboard import Score, Scoreboard

from ..helpers.tiny_models import behind_bottleneck, tiny_head, tiny_segmentor
from .conftest import log_lines


def method(kind: str = 'MeanTeacher', **arguments) -> ConfigDict:
    segmentor = behind_bottleneck(tiny_segmentor()) if kind == 'AllSpark' else tiny_segmentor()
    options = dict(unlabeled_view='weak', teacher=dict(momentum=0.1), threshold=0.0) | arguments
    return ConfigDict(type=f'allspark_mmseg.{kind}', segmentor=segmentor, **options)


@pytest.fixture
def warm(with_validation) -> Config:
    """Four supervised iterations, then four of Mean Teacher; a validation after every second one."""
    config = with_validation
    config.model = method()
    config.train_cfg = dict(type='allspark_mmseg.PhaseTrainLoop', max_iters=4, val_interval=2)
    config.val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
    config.log_processor = dict(by_epoch=False)
    config.default_hooks.logger.log_metric_by_epoch = False
    config.default_hooks.checkpoint.update(by_epoch=False, interval=2)
    config.param_scheduler = [dict(type='PolyLR', power=1.0, begin=0, end=4, by_epoch=False)]
    config.custom_hooks = [
        dict(type='allspark_mmseg.StartupCheckHook'),
        dict(type='allspark_mmseg.MeanTeacherHook'),
        dict(type='allspark_mmseg.WarmStartHook', max_iters=4, val_interval=2, lr_mult=2.0),
    ]
    return config


def count_epochs(config: Config) -> None:
    """Let the second phase count epochs of two iterations."""
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
    config.param_scheduler = [
        dict(type='PolyLR', power=1.0, begin=0, end=2, by_epoch=True, convert_to_iter_based=True)
    ]
    config.default_hooks.checkpoint.update(by_epoch=True, interval=1)


def hook_config(config: Config) -> dict:
    return config.custom_hooks[2]


class Recorder(Hook):
    """Notes what each iteration sees."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.rows = []
        self.states = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        inputs = data_batch['inputs']
        views = sorted({name for image in inputs for name in image.keys()})  # noqa: SIM118 (not a dict)
        losses = {name for name in outputs if 'loss' in name}
        self.rows.append((runner.iter, runner.model.supervised_only, views, self.lr, losses))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.lr = runner.optim_wrapper.get_lr()['lr'][0]
        # the state before the optimizer of a phase has moved it
        state = {name: value.clone() for name, value in runner.model.state_dict().items()}
        self.states[runner.iter] = (state, dict(runner.optim_wrapper.optimizer.state), runner.optim_wrapper)


def train(runner_of, config: Config, **overrides) -> tuple:
    config.update(overrides)
    runner, recorder = runner_of(config), Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder, json.loads(Path(runner.work_dir, 'summary.json').read_text())


def test_two_phases_in_one_run(warm, runner_of):
    runner, recorder, summary = train(runner_of, warm)
    assert [row[0] for row in recorder.rows] == list(range(8))
    assert [row[1] for row in recorder.rows] == [True] * 4 + [False] * 4
    supervised, semi = recorder.rows[:4], recorder.rows[4:]
    assert all(row[2] == ['labeled'] for row in supervised), 'no unlabeled image is loaded'
    assert all(row[2] == ['labeled', 'weak'] for row in semi)
    assert all(not any(name.startswith('unsup') for name in row[4]) for row in supervised)
    assert all('unsup.loss_ce' in row[4] for row in semi)
    # the learning rate decays in each phase from its own start: 2 * 0.01 and 0.01
    assert [row[3] for row in semi] == pytest.approx([0.01 * (1 - step / 3) for step in range(4)])
    assert supervised[0][3] == pytest.approx(0.02)
    assert supervised[3][3] == pytest.approx(0.0, abs=1e-12)
    assert [score['iteration'] for score in summary['scores']] == [2, 4, 6, 6, 8, 8]
    assert runner.iter == runner.max_iters == 8


def start_of_the_next_second() -> None:
    """The folder of a run's log has the time of its start in seconds."""
    time.sleep(1 - time.time() % 1)


def test_a_new_run_in_the_work_dir_takes_nothing_from_the_earlier_one(warm, runner_of, tmp_path):
    """The earlier run has better scores, which a resume of the new run must not find."""
    first, *_ = train(runner_of, warm)
    folder, log = Path(first.work_dir), Path(first.log_dir)
    path = folder / 'summary.json'
    better = json.loads(path.read_text())
    for score in better['scores']:
        score['value'] += 50
    path.write_text(json.dumps(better))
    weights = (folder / 'supervised.pth').read_bytes()
    warm.randomness, warm.log_level = dict(seed=5), 'WARNING'
    alone = copy.deepcopy(warm)

    class Stop(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 2:  # the third step, after the first checkpoint
                raise KeyboardInterrupt

    start_of_the_next_second()
    second = runner_of(warm)
    second.register_hook(Stop())
    with pytest.raises(KeyboardInterrupt):
        second.train()
    assert (log / 'supervised.pth').read_bytes() == weights
    assert {path.name for path in log.glob('*.pth')} >= {'chosen.pth', 'MeanTeacher.pth', 'iter_8.pth'}
    (lines,) = [path.read_text().splitlines() for path in Path(second.log_dir).glob('*.log')]
    moved = [line for line in lines if 'has files of an earlier run' in line]
    assert len(moved) == 1 and str(log) in moved[0] and 'last_checkpoint' in moved[0]
    _, _, resumed = train(runner_of, warm, resume=True)

    alone.work_dir = str(tmp_path / 'alone')
    _, _, expected = train(runner_of, alone)
    assert resumed['chosen'] == expected['chosen']
    assert [score['value'] for score in resumed['scores']] == [score['value'] for score in expected['scores']]


def test_a_new_run_can_start_from_a_checkpoint_in_its_work_dir(warm, runner_of):
    first, *_ = train(runner_of, warm)
    warm.load_from = str(Path(first.work_dir, 'supervised.pth'))
    start_of_the_next_second()
    _, _, summary = train(runner_of, warm)
    assert summary['supervised']['iteration'] == 0
    assert Path(first.log_dir, 'chosen.pth').is_file()


def test_second_phase_starts_from_the_best_weights_with_a_new_optimizer(warm, runner_of):
    hook_config(warm).val_interval = 1
    runner, recorder, summary = train(runner_of, warm)
    best = torch.load(Path(runner.work_dir, 'supervised.pth'))
    state, optimizer_state, wrapper = recorder.states[4]
    for name, value in best['state_dict'].items():
        assert torch.equal(state[f'student.{name}'], value), name
        assert torch.equal(state[f'teacher.module.{name}'], value), name
    assert state['teacher.steps'] == 0
    assert not optimizer_state
    assert wrapper is not recorder.states[0][2]
    # the file is of the best validation, not of the last
    assert best['meta']['iter'] == summary['supervised']['iteration']
    state_then = recorder.states[best['meta']['iter']][0] if best['meta']['iter'] < 4 else None
    if state_then is not None:
        assert torch.equal(
            state_then['student.decode_head.conv_seg.weight'],
            best['state_dict']['decode_head.conv_seg.weight'],
        )


def test_the_control_has_no_unlabeled_losses(warm, runner_of):
    hook_config(warm).control = True
    scales = []

    class Scale(Hook):
        priority = 'VERY_LOW'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            scales.append((runner.model.unlabeled_scale, float(outputs.get('unsup.loss_ce', 0))))

    runner = runner_of(warm)
    runner.register_hook(Scale())
    runner.train()
    assert scales == [(0.0, 0.0)] * 8
    summary = json.loads(Path(runner.work_dir, 'summary.json').read_text())
    assert summary['control'] is True


def test_unlabeled_losses_ramp_up(warm, runner_of):
    hook_config(warm).ramp_up = 4
    runner = runner_of(warm)
    scales = []

    class Scales(Hook):
        priority = 'VERY_LOW'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            scales.append(runner.model.unlabeled_scale)

    runner.register_hook(Scales())
    runner.train()
    assert scales[4:] == [0.25, 0.5, 0.75, 1.0]


def test_scale_multiplies_the_unlabeled_losses_only(built_mean_teacher):
    model, inputs, samples = built_mean_teacher
    torch.manual_seed(3)
    full = model(inputs, samples, mode='loss')
    model.unlabeled_scale = 0.25
    torch.manual_seed(3)
    scaled = model(inputs, samples, mode='loss')
    for name, value in full.items():
        factor = 0.25 if name == 'unsup.loss_ce' else 1.0
        assert torch.allclose(scaled[name], value * factor), name


def test_supervised_step_is_that_of_the_plain_segmentor(built_mean_teacher):
    model, inputs, samples = built_mean_teacher
    model.supervised_only = True
    torch.manual_seed(3)
    step = model({'labeled': inputs['labeled']}, {'labeled': samples['labeled']}, mode='loss')
    torch.manual_seed(3)
    plain = model.student.loss(inputs['labeled'], samples['labeled'])
    assert {name.removeprefix('sup.') for name in step} == set(plain)
    for name, value in plain.items():
        compare = (
            torch.equal if 'loss' in name else torch.allclose
        )  # the accuracy is rounded in another order
        assert compare(step[f'sup.{name}'], value), name


@pytest.fixture
def built_mean_teacher():
    from ..helpers.tiny_models import batch, build_model

    torch.manual_seed(0)
    model = build_model(method())
    model.init_weights()
    return model.train(), *batch(views=('weak',))


def test_patience_ends_the_supervised_phase(warm, runner_of, monkeypatch):
    hook_config(warm).update(max_iters=12, val_interval=1, patience=2)
    values = iter([10.0, 30.0, 20.0, 30.0, *[0.0] * 20])
    fake_metrics(monkeypatch, lambda: next(values))
    _, recorder, summary = train(runner_of, warm)
    assert [row[1] for row in recorder.rows] == [True] * 4 + [False] * 4
    assert summary['supervised']['mIoU'] == 30.0
    assert summary['supervised']['iteration'] == 2


def fake_metrics(monkeypatch, value) -> None:
    """Let the IoUMetric report given values; the validation itself runs."""
    monkeypatch.setattr('mmseg.evaluation.IoUMetric.compute_metrics', lambda self, results: {'mIoU': value()})


def test_second_phase_that_does_not_pay_stops_with_advice(warm, runner_of, monkeypatch):
    hook_config(warm).update(give_up=2)
    warm.train_cfg.update(max_iters=20, val_interval=1)
    warm.log_level = 'WARNING'
    # supervised 20, 40; then student and teacher of each validation
    values = iter([20.0, 40.0, 30.0, 35.0, 50.0, 30.0, 40.0, 39.0, 30.0, 30.0, *[0.0] * 20])
    fake_metrics(monkeypatch, lambda: next(values))
    runner, recorder, summary = train(runner_of, warm)
    # below, above (50), at 40 (not above), below: two in a row
    assert len(recorder.rows) == 4 + 4
    assert summary['chosen'] == 'MeanTeacher'
    assert summary['MeanTeacher']['mIoU'] == 50.0
    assert summary['gain'] == 10.0
    assert 'did not exceed the supervised mIoU of 40.00 in 2 validations (best 50.00)' in logged(runner)


def logged(runner) -> str:
    return ''.join(path.read_text() for path in Path(runner.work_dir).glob('*/*.log'))


@pytest.mark.parametrize(
    'values, chosen, network',
    [
        ([20.0, 40.0, 41.0, 39.0, 42.0, 43.0], 'MeanTeacher', None),
        ([20.0, 40.0, 30.0, 39.0, 40.0, 38.0], 'supervised', 'student'),
    ],
)
def test_the_better_network_is_chosen(warm, runner_of, monkeypatch, values, chosen, network):
    left = iter(values)
    fake_metrics(monkeypatch, lambda: next(left))
    runner, _, summary = train(runner_of, warm)
    folder = Path(runner.work_dir)
    assert summary['chosen'] == chosen
    assert summary['gain'] == max(values[2:]) - max(values[:2])
    assert summary[chosen]['mIoU'] == max(values)
    stored = torch.load(folder / 'chosen.pth')
    assert stored['meta']['phase'] == chosen
    assert stored['meta']['network'] == (network or summary[chosen]['network'])
    assert (folder / 'chosen.pth').samefile(folder / f'{chosen}.pth')
    assert not list(folder.glob('.*')), 'no temporary file stays'


def test_student_and_teacher_compete(warm, runner_of, monkeypatch):
    # TeacherStudentValLoop evaluates the network that does not predict first: here, the teacher
    values = iter([20.0, 30.0, 45.0, 35.0, 41.0, 44.0])
    fake_metrics(monkeypatch, lambda: next(values))
    _, _, summary = train(runner_of, warm)
    assert summary['MeanTeacher'] | {'minutes': 0} == {
        'mIoU': 45.0,
        'iteration': 6,
        'minutes': 0,
        'network': 'teacher',
        'last': 44.0,
    }


def test_chosen_files_work_without_the_method(warm, runner_of):
    runner, _, _summary = train(runner_of, warm)
    folder = Path(runner.work_dir)
    config = Config.fromfile(folder / 'chosen.py')
    assert config.model.type == 'EncoderDecoder'
    assert config.model.data_preprocessor.type == 'SegDataPreProcessor'
    model = init_model(config, str(folder / 'chosen.pth'), device='cpu')
    stored = torch.load(folder / 'chosen.pth')['state_dict']
    assert set(stored) == set(model.state_dict())
    assert model.dataset_meta['classes'] == ('sky', 'road', 'tree', 'car')
    assert config.test_dataloader.dataset.ann_file == 'labeled.txt'


def test_learning_rates_of_both_phases_are_scaled(warm, runner_of):
    warm.auto_scale_lr = dict(enable=True, base_batch_size=6)  # the batches have 3 images
    _, recorder, _ = train(runner_of, warm)
    assert recorder.rows[0][3] == pytest.approx(0.01)
    assert recorder.rows[4][3] == pytest.approx(0.005)


def test_checkpoint_of_the_supervised_phase_predicts_like_the_student(warm, runner_of):
    warm.model.predict_on = 'teacher'
    runner, _, summary = train(runner_of, warm)
    warm.load_from = str(Path(runner.work_dir, 'iter_4.pth'))
    warm.default_hooks.checkpoint.max_keep_ckpts = -1
    validated = runner_of(warm).test()['mIoU']
    (score,) = [score for score in summary['scores'] if score['iteration'] == 4]
    assert validated == pytest.approx(score['value'], abs=0.01)


def test_testing_after_training_changes_nothing(warm, runner_of):
    warm.model.predict_on = 'teacher'
    runner, _, summary = train(runner_of, warm)
    before = Path(runner.work_dir, 'summary.json').read_text()
    tested = runner.test()['mIoU']
    (last,) = [s for s in summary['scores'] if (s['iteration'], s['network']) == (8, 'teacher')]
    assert tested == pytest.approx(last['value'], abs=0.01)
    assert Path(runner.work_dir, 'summary.json').read_text() == before


def test_resume_in_another_work_dir_keeps_the_scores(warm, runner_of, tmp_path):
    first, _, before = train(runner_of, warm)
    warm.work_dir = str(tmp_path / 'elsewhere')
    source = str(Path(first.work_dir, 'iter_6.pth'))
    _, recorder, summary = train(runner_of, warm, resume=True, load_from=source)
    assert [row[0] for row in recorder.rows] == [6, 7]
    assert summary['supervised']['mIoU'] == before['supervised']['mIoU']
    assert [score['iteration'] for score in summary['scores']] == [2, 4, 6, 6, 8, 8]


def test_accumulated_gradients_of_the_first_phase_are_dropped(warm, runner_of):
    warm.optim_wrapper.accumulative_counts = 3  # 4 iterations leave one
    hook_config(warm).max_iters = 4

    class Gradients(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 4:
                grads = [p.grad for p in runner.model.student.parameters() if p.grad is not None]
                assert all(not grad.any() for grad in grads)
                self.seen = True

    runner, check = runner_of(warm), Gradients()
    runner.register_hook(check, priority='LOWEST')
    runner.train()
    assert check.seen


def test_network_of_a_later_validation_keeps_its_score(tmp_path):
    """A run saves a checkpoint at 2, stores its best network at 4, is killed, and resumes from 2."""
    board = Scoreboard(tmp_path, 'X')
    board.add(Score('supervised', 'student', 2, 1.0, 30.0))
    saved = board.to_dicts()
    board.add(Score('supervised', 'student', 4, 2.0, 35.0))
    board.save()
    resumed = Scoreboard(tmp_path, 'X')
    resumed.load(saved)
    assert resumed.best('supervised').value == 35.0
    resumed.add(Score('supervised', 'student', 4, 2.5, 33.0))
    assert resumed.best('supervised').value == 35.0, 'the file is still that of the higher score'
    resumed.add(Score('supervised', 'student', 6, 3.0, 36.0))
    assert resumed.best('supervised').iteration == 6


def test_testing_needs_no_training_data(warm, runner_of):
    runner, _, summary = train(runner_of, warm)
    warm.train_dataloader.dataset.labeled.data_root = 'moved away'
    warm.load_from = str(Path(runner.work_dir, 'iter_8.pth'))
    tester = runner_of(warm)
    expected = {'student': tester.test()['mIoU'], 'validated': runner_of(warm).val()['mIoU']}
    values = [score['value'] for score in summary['scores'] if score['network'] == 'student']
    assert expected == pytest.approx({'student': values[-1], 'validated': values[-1]}, abs=0.01)
    assert json.loads(Path(runner.work_dir, 'summary.json').read_text()) == summary


@pytest.mark.parametrize('killed_at', [2, 4, 6])
def test_resumed_run_ends_like_an_uninterrupted_one(warm, runner_of, tmp_path, killed_at):
    warm.work_dir = str(tmp_path / 'whole')
    whole, uninterrupted, expected = train(runner_of, warm)

    class Kill(Hook):
        priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == killed_at:
                raise KeyboardInterrupt

    warm.work_dir = str(tmp_path / 'killed')
    killed = runner_of(warm)
    killed.register_hook(Kill())
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed, recorder, summary = train(runner_of, warm, resume=True)
    assert [row[0] for row in recorder.rows] == list(range(killed_at, 8))
    assert [row[1] for row in recorder.rows] == [iteration < 4 for iteration in range(killed_at, 8)]
    # the crops are drawn anew, so the weights are not the same bit by bit; the schedule and counters are
    rates = [[row[3] for row in each.rows] for each in (uninterrupted, recorder)]
    assert rates[1] == pytest.approx(rates[0][killed_at:])
    assert resumed.model.state_dict()['teacher.steps'] == whole.model.state_dict()['teacher.steps'] == 4
    keys = ('phase', 'network', 'iteration')
    rows = [[tuple(score[key] for key in keys) for score in each['scores']] for each in (expected, summary)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize('by_epoch', [False, True])
def test_validation_that_was_killed_is_repeated(warm, runner_of, by_epoch):
    if by_epoch:
        count_epochs(warm)

    class Kill(Hook):
        def before_val(self, runner):
            if runner.iter == 6:
                raise KeyboardInterrupt

    runner = runner_of(warm)
    runner.register_hook(Kill())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    _, _, summary = train(runner_of, warm, resume=True)
    assert [score['iteration'] for score in summary['scores']] == [2, 4, 6, 6, 8, 8]


def test_checkpoint_replaces_the_supervised_phase(warm, runner_of, tmp_path):
    first, _, before = train(runner_of, warm)
    warm.work_dir = str(tmp_path / 'second')
    source = Path(first.work_dir, 'supervised.pth')
    _runner, recorder, summary = train(runner_of, warm, load_from=str(source))
    assert [row[1] for row in recorder.rows] == [False] * 4
    assert [row[0] for row in recorder.rows] == list(range(4))
    assert summary['supervised']['mIoU'] == before['supervised']['mIoU'], 'it is validated'
    assert summary['supervised']['iteration'] == 0
    for name, value in torch.load(source)['state_dict'].items():
        assert torch.equal(recorder.states[0][0][f'teacher.module.{name}'], value)


def test_plain_weights_start_the_supervised_phase_of_a_network_with_bottleneck(warm, runner_of, tmp_path):
    """The bottleneck is random, so the score of the loaded weights would say nothing."""
    first, _, _before = train(runner_of, warm)
    source = Path(first.work_dir, 'supervised.pth')
    warm.log_level = 'WARNING'
    warm.model = method('AllSpark')
    warm.custom_hooks.append(dict(type='allspark_mmseg.MemoryWarmUpHook', iters=2))
    warm.work_dir = str(tmp_path / 'second')
    start_of_the_next_second()
    runner, recorder, summary = train(runner_of, warm, load_from=str(source))
    assert [row[1] for row in recorder.rows] == [True] * 4 + [False] * 4
    assert [score['iteration'] for score in summary['scores']] == [2, 4, 6, 6, 8, 8]
    for name, value in torch.load(source)['state_dict'].items():
        own = name.replace('decode_head.', 'decode_head.decoder.')
        assert torch.equal(recorder.states[0][0][f'student.{own}'], value)
    assert runner.model.memory_ready
    (line,) = [line for line in log_lines(runner) if 'has no weights of' in line]
    assert 'decode_head.bottleneck.' in line


def test_weights_of_a_network_with_bottleneck_replace_its_supervised_phase(warm, runner_of, tmp_path):
    warm.model = method('AllSpark')
    first, _, before = train(runner_of, warm)
    warm.work_dir = str(tmp_path / 'second')
    source = str(Path(first.work_dir, 'supervised.pth'))
    _, recorder, summary = train(runner_of, warm, load_from=source)
    assert [row[1] for row in recorder.rows] == [False] * 4
    assert summary['supervised']['mIoU'] == before['supervised']['mIoU']


def test_memory_warm_up_counts_from_the_second_phase(warm, runner_of):
    warm.model = method('AllSpark')
    warm.custom_hooks.append(dict(type='allspark_mmseg.MemoryWarmUpHook', iters=2))
    _, recorder, _ = train(runner_of, warm)
    ready = [bool(recorder.states[iteration][0]['memory_ready']) for iteration in range(8)]
    assert ready == [False] * 6 + [True] * 2


def test_epoch_based_second_phase(warm, runner_of):
    """Checkpoints of the supervised phase are stored, too."""
    count_epochs(warm)
    runner, recorder, summary = train(runner_of, warm)
    assert [row[0] for row in recorder.rows] == list(range(8))
    assert [score['iteration'] for score in summary['scores']] == [2, 4, 6, 6, 8, 8]
    assert recorder.rows[4][3] == pytest.approx(0.01)
    stored = torch.load(Path(runner.work_dir, 'supervised_last.pth'), weights_only=False)
    assert stored['meta']['iter'] == 4
    assert stored['meta']['warm_start']['supervised'] is True


def test_stock_iteration_loop_becomes_the_second_phase(warm, runner_of):
    warm.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
    _, recorder, summary = train(runner_of, warm)
    assert [row[0] for row in recorder.rows] == list(range(8))
    assert [score['iteration'] for score in summary['scores']] == [2, 4, 6, 6, 8, 8]


def test_without_validation_the_last_weights_are_used(warm, runner_of):
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        warm.pop(key)
    warm.train_cfg.pop('val_interval')
    _runner, recorder, summary = train(runner_of, warm)
    assert [row[1] for row in recorder.rows] == [True] * 4 + [False] * 4
    assert 'chosen' not in summary


@pytest.mark.parametrize(
    'arguments, complaint',
    [
        (dict(max_iters=0), 'max_iters is 0, expected 1 or more'),
        (dict(val_interval=0), 'val_interval is 0, expected 1 or more'),
        (dict(patience=0), 'patience is 0, expected 1 or more'),
        (dict(give_up=0), 'give_up is 0, expected 1 or more'),
        (dict(ramp_up=-1), 'ramp_up is -1, expected 0 or more'),
        (dict(lr_mult=0), 'lr_mult is 0, expected a factor above 0'),
        (dict(ramp_up=5), 'ramp_up is 5, expected at most the 4 iterations of train_cfg'),
        (dict(batch_size=4), 'has 3 images, but a step needs labeled=4'),
    ],
)
def test_bad_arguments_are_named(warm, runner_of, arguments, complaint):
    hook_config(warm).update(arguments)
    with pytest.raises(ValueError, match=complaint):
        runner_of(warm).train()


def test_patience_needs_validation(warm, runner_of):
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        warm.pop(key)
    warm.train_cfg.pop('val_interval')
    hook_config(warm).patience = 2
    with pytest.raises(ValueError, match='patience is 2, but the config has no validation'):
        runner_of(warm).train()


def test_plain_segmentor_is_refused(warm, runner_of):
    warm.model = ConfigDict(tiny_segmentor())
    warm.custom_hooks = warm.custom_hooks[2:]
    warm.val_cfg = dict(type='ValLoop')
    with pytest.raises(ValueError, match='model is a EncoderDecoder, expected a semi-supervised method'):
        runner_of(warm).train()


def test_unknown_metric_is_named(warm, runner_of):
    hook_config(warm).metric = 'mDice'
    with pytest.raises(KeyError, match="metric is 'mDice', but the validation has"):
        runner_of(warm).train()


@pytest.mark.parametrize(
    'change, complaint',
    [
        (dict(decode_head=tiny_head() | dict(num_classes=7)), r'decode_head.conv_seg.weight has shape \(7'),
        (dict(decode_head=tiny_head() | dict(channels=8)), r'has shape \(8'),
    ],
)
def test_weights_of_another_network_are_refused(warm, runner_of, tmp_path, change, complaint):
    from ..helpers.tiny_models import build_model

    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=build_model(tiny_segmentor(**change)).state_dict()), path)
    warm.load_from = str(path)
    with pytest.raises(ValueError, match=f'another network or of other classes: .*{complaint}'):
        runner_of(warm).train()


def test_weights_without_a_classifier_are_refused(warm, runner_of, tmp_path):
    from ..helpers.tiny_models import build_model

    state = build_model(tiny_segmentor()).state_dict()
    torch.save({name: value for name, value in state.items() if 'conv_seg' not in name}, tmp_path / 'cut.pth')
    warm.load_from = str(tmp_path / 'cut.pth')
    with pytest.raises(ValueError, match=r'decode_head.conv_seg.weight is missing'):
        runner_of(warm).train()


def test_run_without_the_hook_cannot_be_resumed_with_it(warm, runner_of):
    hook = warm.custom_hooks.pop()
    runner_of(warm).train()
    warm.custom_hooks.append(hook)
    warm.resume = True
    with pytest.raises(ValueError, match=r'is from a run without WarmStartHook'):
        runner_of(warm).train()


@pytest.mark.parametrize(
    ('supervised', 'method', 'control', 'sentence'),
    [
        (
            (40, 39),
            44,
            False,
            'The second phase, with the unlabeled images, gained 4.00. chosen.pth is the student',
        ),
        (
            (39, 40),
            44,
            False,
            'was still improving when it ended, so longer training can be a part of this gain.',
        ),
        (
            (39, 40),
            40,
            False,
            'The unlabeled images did not pay (0.00). chosen.pth is the supervised network.',
        ),
        ((39, 40), 44, True, 'The second phase without losses of unlabeled images gained 4.00. chosen.pth'),
    ],
)
def test_the_sentence_at_the_end(tmp_path, supervised, method, control, sentence):
    board = Scoreboard(tmp_path, 'X', control=control)
    for iteration, value in enumerate(supervised):
        board.add(Score('supervised', 'student', iteration, 1.0, value))
    board.add(Score('X', 'student', 9, 2.0, method))
    assert sentence in board.sentence()
