"""The published split lists, in the layout of the reference repositories.

``ALLSPARK_SPLITS`` names the folder ``splits`` of a checkout of AllSpark. Without it, the tests that need
the lists are skipped and the reason is printed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from allspark_mmseg.datasets.published_splits import LISTS
from tests.helpers.configs import ROOT

# the lists belong to their authors, so they are not part of this repository
PUBLISHED = Path(os.environ['ALLSPARK_SPLITS']) if 'ALLSPARK_SPLITS' in os.environ else None


def published_folder() -> Path:
    """Folder of the published lists; skips the test if it is not given."""
    if PUBLISHED is None:
        pytest.skip('set ALLSPARK_SPLITS to the folder splits of a checkout of AllSpark')
    return PUBLISHED


def reference_path(path: str) -> str:
    """Path of a list of ``LISTS`` in the reference repositories, below splits/."""
    return path.replace('voc/', 'pascal/')


def published_lists() -> dict[str, bytes]:
    """Key of ``LISTS`` -> content, for the lists that are there."""
    files = {path: published_folder() / reference_path(path) for path in LISTS}
    return {path: file.read_bytes() for path, file in files.items() if file.is_file()}


def run_make_splits(*arguments: object) -> tuple[int, str]:
    """Run make_splits.py as a user does: exit status and output."""
    command = [sys.executable, ROOT / 'tools/dataset_converters/make_splits.py', *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def lists_below(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of all files below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*') if file.is_file()}


def row(output: str, path: str) -> list[str]:
    """Columns of a list in the printed table: path, number of lines, and the rest."""
    return next(line.split(maxsplit=2) for line in output.splitlines() if line.startswith(f'{path} '))


def image_ids(content: bytes) -> list[str]:
    """Names of the images of a list, without folder and suffix."""
    return [Path(line.split()[0]).stem for line in content.decode().splitlines()]
