"""python -m allspark_mmseg VERB runs the commands, and tools/VERB.py runs the same."""

import runpy
import sys
from importlib import import_module

import pytest

from allspark_mmseg.__main__ import VERBS, main

from ..helpers.configs import ROOT


def test_the_list_of_commands(capsys):
    assert main([]) == 0
    output = capsys.readouterr().out
    assert all(f'  {verb}' in output and purpose in output for verb, purpose in VERBS.items())


def test_an_unknown_command_is_named(capsys):
    assert main(['tain']) == 2
    assert "'tain' is not a command" in capsys.readouterr().err


@pytest.mark.parametrize('verb', VERBS)
def test_a_command_explains_itself(verb, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['x'])
    with pytest.raises(SystemExit) as caught:
        main([verb, '--help'])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f'usage: python -m allspark_mmseg {verb} ')


@pytest.mark.parametrize('verb', VERBS)
def test_the_tool_runs_the_same_function(verb):
    assert f'from allspark_mmseg.cli.{verb} import main' in (ROOT / 'tools' / f'{verb}.py').read_text()
    assert callable(import_module(f'allspark_mmseg.cli.{verb}').main)


def test_an_interrupted_command_ends_with_130(monkeypatch, capsys):
    def interrupt(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('allspark_mmseg.cli.test.main', interrupt)
    assert main(['test']) == 130
    assert 'Interrupted' in capsys.readouterr().err


def test_the_package_runs_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['allspark_mmseg'])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module('allspark_mmseg', run_name='__main__')
    assert not ended.value.code
    assert 'usage: python -m allspark_mmseg VERB' in capsys.readouterr().out
