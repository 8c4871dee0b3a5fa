"""Data and work dirs that all tests of the report read, and do not change."""

from pathlib import Path

import pytest

from ..helpers.work_dirs import make_data, make_plain, make_two_phases


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='session')
def seeds(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with two phases that differ only in the seed."""
    root = tmp_path_factory.mktemp('runs')
    return [
        make_two_phases(root / f's{seed}', data, seed, values)
        for seed, values in enumerate([(40.0, 46.0), (41.0, 45.0)])
    ]


@pytest.fixture(scope='session')
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plain(tmp_path_factory.mktemp('plain') / 'supervised', data)
