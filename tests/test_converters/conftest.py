"""Runs the converters' command lines."""

import sys
from collections.abc import Callable

import pytest

from ..helpers.scripts import load_converter


@pytest.fixture
def convert(monkeypatch, capsys) -> Callable[..., str]:
    """Run ``main()`` of a converter and return its output, or with ``refused`` its error message."""

    def run(tool: str, *arguments: object, refused: bool = False) -> str:
        module = load_converter(tool)
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
        if not refused:
            module.main()
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as end:
            module.main()
        assert end.value.code == 2
        return capsys.readouterr().err.partition('error: ')[2]

    return run
