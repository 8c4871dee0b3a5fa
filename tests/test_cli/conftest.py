"""A folder of a user for the tests of ``new``."""

from pathlib import Path

import pytest

from allspark_mmseg.cli.new import main

from ..helpers.folders import classes, mask, photo


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """12 images of 48 x 40, the first 6 with masks of 0 and 255."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / 'my data'
    for number in range(12):
        photo(root / f'images/{number:02d}.jpg', number)
    for number in range(6):
        mask(root / f'masks/{number:02d}.png', 255 * classes(number, count=2))
    return root


def new(*arguments: str) -> int:
    return main(['my data', '--out', 'configs/mine', *arguments])


def lines(data: Path, name: str) -> list[str]:
    return (data / f'.allspark/{name}.txt').read_text().splitlines()
