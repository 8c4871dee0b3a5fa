"""python -m benchmarks all: a rehearsal of all rows, what it writes, and how it goes on."""

import json

import pytest
import torch

from benchmarks import suite
from benchmarks.__main__ import main
from benchmarks.suite_rows import Row, all_rows
from benchmarks.suite_table import suite_table


@pytest.mark.cuda
def test_all_rows_run_and_a_second_run_measures_none_again(tmp_path, capsys, request):
    """At tiny sizes, on the device of the tests."""
    device = request.config.getoption('device')
    out = tmp_path / 'folder' / 'out.json'
    arguments = ['all', '--device', device, '--tiny', '--json', str(out)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    failed = [result for result in report['results'] if 'seconds' not in result]
    assert not failed and ended.value.code == 0
    rows = list(all_rows(device, True))
    assert [result['name'] for result in report['results']] == [row.name for row in rows]
    assert len({row.name for row in rows}) == len(rows) > 40
    for row in rows:
        assert f'| {row.name} |' in printed
    assert all((result['peak_mb'] is None) == (device == 'cpu') for result in report['results'])
    assert 'Total time: ' in printed
    before = out.read_text()
    with pytest.raises(SystemExit):
        main(arguments)
    assert out.read_text() == before
    with pytest.raises(SystemExit, match='results of another device or of other sizes'):
        main([each for each in arguments if each != '--tiny'])


def out_of_memory():
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 80 GiB.')


def broken():
    raise NameError('x')


@pytest.fixture
def three_rows(monkeypatch):
    """A row that works, one that does not fit, and one with an error."""
    calls = []
    rows = [
        Row('works', lambda: lambda: calls.append(1)), Row('large', out_of_memory), Row('broken', broken)
    ]  # fmt: skip
    monkeypatch.setattr(suite, 'all_rows', lambda device, tiny: iter(rows))
    return calls


def test_a_row_that_does_not_fit_or_fails_is_named_and_measured_again(three_rows, tmp_path, capsys):
    out = tmp_path / 'out.json'
    arguments = ['--device', 'cpu', '--tiny', '--json', str(out)]
    assert suite.main(arguments) == 1
    results = {result['name']: result for result in json.loads(out.read_text())['results']}
    assert results['works']['seconds'] > 0
    assert results['large']['skipped'].startswith('it does not fit into the memory of the device')
    assert results['broken']['failed'] == 'NameError: x'
    assert 'broken: failed: NameError: x' in capsys.readouterr().out
    measured = len(three_rows)
    suite.main(arguments)
    assert len(three_rows) == measured, 'a measured row was repeated'


def test_no_row_begins_after_the_limit(three_rows, tmp_path):
    out = tmp_path / 'out.json'
    assert suite.main(['--device', 'cpu', '--tiny', '--json', str(out), '--limit', '-1']) == 0
    results = json.loads(out.read_text())['results']
    assert [result['skipped'] for result in results] == ['the limit of -1.0 s was reached'] * 3
    assert not three_rows


def test_the_file_is_written_after_each_row(three_rows, tmp_path, monkeypatch):
    out = tmp_path / 'out.json'
    written, write = [], suite.write_report

    def count(path, report):
        write(path, report)
        written.append(len(json.loads(path.read_text())['results']))

    monkeypatch.setattr(suite, 'write_report', count)
    suite.main(['--device', 'cpu', '--tiny', '--json', str(out)])
    assert written == [1, 2, 3]


def test_the_table_has_rates_and_ratios():
    rows = [
        Row('matrix product, bf16', out_of_memory, 'bf16', flops=4e12),
        Row('plain', out_of_memory, 'bf16', flops=6e12),
        Row('ours', out_of_memory, 'bf16', plain='plain', flops=7e12, images=(2, 2)),
        Row('data pipeline, labeled image, one core', out_of_memory),
        Row('data pipeline, unlabeled image, one core', out_of_memory),
        Row('lost', out_of_memory),
    ]
    measured = {'plain': (28, 100), 'ours': (14, 25), 'matrix product, bf16': (4, 1)}
    measured |= {row.name: (7, 1) for row in rows[3:5]}
    results = {name: dict(seconds=s, peak_mb=peak) for name, (s, peak) in measured.items()}
    lines = suite_table(rows, results).splitlines()
    assert '| ours | 1.4e+04 ms | 25 MB | 0.286 | 0.5 | 50% | 2.00 | 4.0 | 50% |' in lines
    assert lines[-1] == 'lost: skipped: not measured yet'


def test_cuda_needs_a_gpu(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit):
        suite.main(['--json', str(tmp_path / 'out.json')])
    assert 'use --device cpu --tiny' in capsys.readouterr().err
