"""The scripts that make the golden vectors, as far as they run without a checkout of a reference."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.golden import DEFAULT_FOLDER, load_rule, load_vectors

GENERATORS = DEFAULT_FOLDER / 'generators'
SCRIPTS = sorted(path.stem for path in GENERATORS.glob('make_*.py'))
# the interface of the released class, with the loss of this project
STAND_IN = """
from allspark_mmseg.losses import OHEMCrossEntropyLoss


def ProbOhemCrossEntropy2d(ignore_label, thresh, min_kept):
    loss = OHEMCrossEntropyLoss(thresh, min_kept)
    return lambda logits, label: loss(logits, label, ignore_index=ignore_label)
"""


@pytest.fixture
def generator(monkeypatch):
    """A function that imports a script; the modules that the script imports are forgotten afterwards."""
    monkeypatch.setattr(sys, 'path', [str(GENERATORS), *sys.path])
    monkeypatch.setattr(sys, 'dont_write_bytecode', sys.dont_write_bytecode)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.partition('.')[0] in {'common', 'css', 's4former', 'util', *SCRIPTS}:
            del sys.modules[name]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A stand-in for a checkout of UniMatch that holds only OHEM."""
    folder = tmp_path / 'checkout'
    (folder / 'util').mkdir(parents=True)
    (folder / 'util' / 'ohem.py').write_text(STAND_IN)
    return folder


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_script_describes_its_arguments(generator, capsys, script):
    with pytest.raises(SystemExit) as stop:
        generator(script).main(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(argument in text for argument in ('--reference CHECKOUT', '--out DIR', '--seed N'))


def test_missing_checkout_is_reported(generator, tmp_path):
    missing = str(tmp_path / 'missing')
    with pytest.raises(FileNotFoundError, match='missing is not a folder; pass a checkout'):
        generator('make_ohem').main(['--reference', missing, '--out', str(tmp_path)])


def test_ohem_script_makes_the_committed_vectors(generator, checkout, tmp_path):
    """The inputs are equal bit for bit; loss and gradient are those of this project's own loss."""
    generator('make_ohem').main(['--reference', str(checkout), '--out', str(tmp_path)])
    made, committed = load_vectors('ohem', tmp_path), load_vectors('ohem', DEFAULT_FOLDER)
    assert made.keys() == committed.keys()
    for key, value in committed.items():
        assert made[key].dtype == value.dtype, key
        torch.testing.assert_close(made[key], value, rtol=1e-6, atol=1e-9)
        assert key.endswith(('loss', 'grad')) or torch.equal(made[key], value), key


def test_another_seed_makes_other_vectors(generator, checkout, tmp_path):
    arguments = ['--reference', str(checkout), '--out', str(tmp_path), '--seed', '1']
    generator('make_ohem').main(arguments)
    made, committed = load_vectors('ohem', tmp_path), load_vectors('ohem', DEFAULT_FOLDER)
    assert not torch.equal(made['0.logits'], committed['0.logits'])


@pytest.mark.parametrize('seed', [0, 5])
def test_rule_of_a_seed_is_written_beside_the_vectors(generator, tmp_path, seed):
    """Seed 0 is the committed rule. Other seeds give other states and the same image."""
    rule_tensor = generator('common').load_rule(tmp_path, seed)
    loaded, committed = load_rule(tmp_path), load_rule(DEFAULT_FOLDER)
    for key, shape in (('a.weight', (3, 4)), ('a.bias', (3,)), ('image', (1, 3, 4, 4))):
        expected = committed.rule_tensor(key, shape)
        assert np.array_equal(rule_tensor(key, shape), loaded.rule_tensor(key, shape))
        assert np.array_equal(rule_tensor(key, shape), expected) == (seed == 0 or key == 'image')


def test_missing_vectors_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'ohem\.npz is missing; .* ALLSPARK_GOLDEN'):
        load_vectors('ohem', tmp_path)
