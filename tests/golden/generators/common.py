"""Parts that all generators share: command line, import of a checkout, files of vectors."""

import argparse
import contextlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

RULE = Path(__file__).resolve().parents[1] / 'rule_state.py'


def make_parser(doc: str, seed: int = 0) -> argparse.ArgumentParser:
    """Build the command line of a generator.

    Args:
        doc: Docstring of the script; its first line becomes the help text.
        seed: Seed of the vectors in ``tests/golden``.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        '--reference', type=Path, required=True, metavar='CHECKOUT', help='reference repository'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the vectors')
    parser.add_argument('--seed', type=int, default=seed, metavar='N', help=f'default: {seed}, as committed')
    return parser


def check_checkout(checkout: Path) -> None:
    """Check that a checkout exists, and stop Python from writing byte code into it."""
    if not checkout.is_dir():
        raise FileNotFoundError(f'{checkout} is not a folder; pass a checkout of the reference repository')
    sys.dont_write_bytecode = True


def add_to_path(checkout: Path) -> None:
    """Make the modules of a checkout importable."""
    check_checkout(checkout)
    sys.path.insert(0, str(checkout))


@contextlib.contextmanager
def patched(owner: Any, **values: Any) -> Iterator[None]:
    """Replace attributes of a module, class or object for the duration of a block."""
    previous = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in previous.items():
            setattr(owner, name, value)


def new_module(name: str, **members: Any) -> types.ModuleType:
    """Create an importable module with these members."""
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(members)
    return module


def stand_in_for_timm() -> None:
    """Provide the members of timm that AllSpark's backbone imports, from PyTorch and MMCV."""
    from mmcv.cnn.bricks import DropPath

    new_module('timm')
    new_module('timm.models')
    new_module(
        'timm.models.layers',
        DropPath=DropPath,
        trunc_normal_=nn.init.trunc_normal_,
        to_2tuple=lambda x: x if isinstance(x, (tuple, list)) else (x, x),
    )
    new_module('timm.models.registry', register_model=lambda function: function)
    new_module('timm.models.vision_transformer', _cfg=lambda **options: options)


def to_array(value: Any) -> np.ndarray:
    """Convert a tensor, number or list to an array."""
    return value.detach().cpu().numpy() if torch.is_tensor(value) else np.asarray(value)


def save(path: Path, vectors: Mapping[str, Any]) -> None:
    """Write vectors to a compressed ``.npz`` file and print its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {key: to_array(value) for key, value in vectors.items()}
    np.savez_compressed(path, **arrays)
    print(f'{path.name}: {len(vectors)} arrays, {path.stat().st_size // 1024} KiB', flush=True)


def load_rule(out: Path, seed: int) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """Write ``rule_state.py`` for a seed into ``out`` and return its ``rule_tensor``."""
    prefix = f'{seed}.' if seed else ''
    source = RULE.read_text().replace("\nPREFIX = ''\n", f'\nPREFIX = {prefix!r}\n')
    path = out / RULE.name
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    spec = importlib.util.spec_from_file_location('rule_state', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rule_tensor


def fill_by_rule(net: nn.Module, rule_tensor: Callable) -> dict[str, tuple[int, ...]]:
    """Load the state that the rule gives into a network; return the shape of each key."""
    spec = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    net.load_state_dict({key: torch.from_numpy(rule_tensor(key, shape)) for key, shape in spec.items()})
    return spec
