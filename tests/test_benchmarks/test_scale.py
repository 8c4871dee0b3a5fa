"""The benchmarks of docs/scale.md, on small inputs, in forked processes."""

import json
import re

import pytest

from benchmarks import pool_size, traffic


def test_pool_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('XDG_CACHE_HOME', 'is replaced')
    folder, rows = tmp_path / 'pool', tmp_path / 'rows.json'
    pool_size.main([str(folder), '--sizes', '40', '120', '--files', '100', '--json', str(rows)])
    measured = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row['images'] for row in measured] == [40, 120]
    for row in measured:
        assert set(row) == set(pool_size._COLUMNS)
        assert all(0 < row[name] < 60 for name in ('first', 'next', 'permute', 'batch', 'resume'))
        assert row['in files'] - 1 <= row['memory'] < 60
    assert (folder / 'pool/0000/00000099.jpg').stat().st_nlink == 101
    assert (folder / 'pool_120.txt').read_text().splitlines()[100] == 'pool/0000/00000000.jpg'
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_what_is_sent_follows_the_formulas(capsys):
    traffic.main(
        ['--processes', '2', '--compute', '64', '--parameters', '1', '--crop', '65', '--channels', '64']
    )
    lines = capsys.readouterr().out.splitlines()[2:]
    parts = {match[1]: [float(value.replace(',', '')) for value in match[2].split()]
             for line in lines if (match := re.fullmatch(r' *(\D+?) {2,}(.+)', line))}  # fmt: skip
    assert len(parts) == len(lines) == 5
    gradients, memory, prototypes = (parts[name] for name in list(parts)[:3])
    assert gradients[1:] == pytest.approx([4e6 / 1024, 2 * 4e6 * 63 / 64 / 1024], rel=1e-4)
    # 2 images of 3 x 3 positions and 64 channels, float, with one int64 for each channel
    assert memory[1:] == pytest.approx(
        [2 * 64 * (9 * 4 + 8) / 1024, 63 * 2 * 64 * (9 * 4 + 8) / 1024], abs=0.01
    )
    assert prototypes[1] == pytest.approx(4 * 21 * 257 / 1024, abs=0.01)
    for name, (measured, formula, _) in parts.items():
        assert formula <= measured <= 1.05 * formula + 1, name  # gloo's headers
