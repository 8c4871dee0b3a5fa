"""Stand-ins of the published data sets."""

from pathlib import Path

import pytest

from ..helpers.configs import PUBLISHED
from ..helpers.stand_ins import make_stand_in


@pytest.fixture(scope='session')
def stand_ins(tmp_path_factory) -> dict[str, Path]:
    """Folders of small data with the real layout, by data set."""
    return {name: make_stand_in(tmp_path_factory.mktemp(name), name) for name in PUBLISHED}
