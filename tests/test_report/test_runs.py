"""Runs: method, phases, state; and groups of runs that differ only in the seed."""

import shutil

import pytest

from allspark_mmseg.report.groups import group_runs
from allspark_mmseg.report.runs import Best, read_run
from allspark_mmseg.report.settings import settings_table

from ..helpers.work_dirs import make_two_phases, write_entries, write_log


def test_a_run_with_two_phases(seeds):
    run = read_run(seeds[0])
    assert (run.method, run.metric, run.seed, run.state) == ('AllSpark', 'mIoU', '0', 'finished')
    assert run.supervised == Best(40.0, 20, 'student') and run.best == Best(46.0, 40, 'teacher')
    assert run.gain == 6.0 and run.log.boundary == 20


def test_a_test_in_the_work_dir_changes_nothing(seeds, tmp_path):
    """MMSegmentation's test tool writes its config to a folder of the same form, with --tta another one."""
    folder = shutil.copytree(seeds[0], tmp_path / 'run')
    config = folder / '9/vis_data/config.py'
    config.parent.mkdir(parents=True)
    config.write_text("model = dict(type='SegTTAModel')\n")
    config.with_name('scalars.json').write_text('{"mIoU": 12.0, "step": 0}\n')
    run = read_run(folder)
    assert run.method == 'AllSpark' and run.gain == 6.0


def test_a_supervised_run_has_its_log_alone(plain):
    run = read_run(plain)
    assert (run.method, run.semi_supervised, run.state) == ('Supervised', False, 'finished')
    assert run.supervised == run.best == Best(41.0, 40) and run.gain is None


def test_a_published_recipe_without_summary(seeds, tmp_path):
    """A method without a supervised phase: the best of student and teacher counts."""
    folder = tmp_path / 'fixmatch'
    config = (
        (seeds[0] / '1/vis_data/config.py')
        .read_text()
        .replace('allspark_mmseg.AllSpark', 'allspark_mmseg.FixMatch')
    )
    write_entries(
        folder, '1', [{'iter': 5, 'step': 5, 'loss': 1.0}, {'mIoU': 30.0, 'student/mIoU': 33.0, 'step': 9}]
    )
    (folder / '1/vis_data/config.py').write_text(config)
    run = read_run(folder)
    assert run.best == Best(33.0, 9, 'student') and run.supervised is None and run.state == 'not started'


def test_a_run_can_be_training_or_stopped(data, tmp_path):
    run = read_run(make_two_phases(tmp_path / 'a', data, step=30))
    assert run.state == 'training' and run.position == 'iteration 30 of 40'
    assert run.best is None and run.supervised is not None
    write_log(tmp_path / 'a', '1', ['INFO - Iter(train) [30/40]'])
    assert read_run(tmp_path / 'a').state == 'stopped'


def test_seeds_are_one_group_and_methods_are_others(seeds, plain):
    groups = group_runs([read_run(path) for path in (*seeds, plain)])
    assert [group.name for group in groups] == ['AllSpark', 'Supervised']
    assert groups[0].values('gain') == [6.0, 4.0] and groups[0].mean_best == 45.5


def test_other_settings_are_another_group_and_labels_decide(seeds, tmp_path):
    runs = [read_run(path) for path in seeds]
    runs[1].config.model.threshold = 0.5
    assert [group.name for group in group_runs(runs)] == ['AllSpark (s0)', 'AllSpark (s1)']
    named = [read_run(path, 'mine') for path in seeds]
    assert [(group.name, len(group.runs)) for group in group_runs(named)] == [('mine', 2)]


@pytest.mark.parametrize(
    ('make', 'message'), [(False, 'is not a folder'), (True, 'has neither summary.json nor')]
)
def test_other_folders_are_refused(tmp_path, make, message):
    folder = tmp_path / 'x'
    if make:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=message):
        read_run(folder)


def test_settings_have_one_value_for_each_run(seeds, plain):
    table = settings_table([read_run(seeds[0]), read_run(plain)])
    assert table['method'] == ['AllSpark', 'Supervised'] and table['threshold'] == ['0.8', '']
    assert table['device'] == ['CPU, 1 process'] * 2 and table['versions'][0] == 'Python 3.11.7'
