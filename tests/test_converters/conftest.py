"""Official state dicts made from the documented tables, and the command lines of the converters."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from ..helpers.configs import ROOT

TOOLS = ROOT / 'tools' / 'model_converters'
DEPTHS, WIDTHS = (1, 2, 1, 1), (8, 16, 40, 64)


def layer(name: str, *weight: int) -> list[tuple[str, tuple]]:
    return [(f'{name}.weight', weight), (f'{name}.bias', weight[:1])]


def mit_spec(depths=DEPTHS, widths=WIDTHS) -> dict[str, tuple]:
    """Keys and shapes of an official MiT, in order, by the table of the reference."""
    spec = []
    for s, c in enumerate(widths, 1):
        k = 7 if s == 1 else 3
        before = 3 if s == 1 else widths[s - 2]
        spec += layer(f'patch_embed{s}.proj', c, before, k, k) + layer(f'patch_embed{s}.norm', c)
    for s, c in enumerate(widths, 1):
        r = 2 ** (4 - s)
        for i in range(depths[s - 1]):
            b = f'block{s}.{i}'
            spec += layer(f'{b}.norm1', c) + layer(f'{b}.attn.q', c, c) + layer(f'{b}.attn.kv', 2 * c, c)
            spec += layer(f'{b}.attn.proj', c, c)
            if s <= 3:
                spec += layer(f'{b}.attn.sr', c, c, r, r) + layer(f'{b}.attn.norm', c)
            spec += layer(f'{b}.norm2', c) + layer(f'{b}.mlp.fc1', 4 * c, c)
            spec += layer(f'{b}.mlp.dwconv.dwconv', 4 * c, 1, 3, 3) + layer(f'{b}.mlp.fc2', c, 4 * c)
        spec += layer(f'norm{s}', c)
    return dict(spec)


def allspark_spec(depths=DEPTHS, widths=WIDTHS, *, channels=32, classes=4, positions=9) -> dict[str, tuple]:
    """Keys and shapes of an official AllSpark model, in order; of its baseline when positions is 0."""
    spec = [(f'backbone.{key}', shape) for key, shape in mit_spec(depths, widths).items()]
    d = widths[-1]
    if positions:
        a = 'decoder.allspark'
        spec += layer(f'{a}.map_in.0', d, d, 1, 1) + layer(f'{a}.attn_norm', d)
        spec += [(f'{a}.attn.queue_ptr', (classes,)), (f'{a}.attn.kv_queue', (classes, d, positions))]
        names = ('q_u', 'k_u', 'v_u', 'q_l2u', 'k_l2u', 'v_l2u')
        spec += [(f'{a}.attn.{name}.weight', (2 * d, d)) for name in names]
        spec += [(f'{a}.attn.{name}.weight', (d, 2 * d)) for name in ('out_u', 'out_l2u')]
        spec += layer(f'{a}.encoder_norm', d) + layer(f'{a}.map_out.0', d, d, 1, 1)
    decoder = 'decoder.decoder'
    for s in (4, 3, 2, 1):
        spec += layer(f'{decoder}.linear_c{s}.proj', channels, widths[s - 1])
    spec += [(f'{decoder}.linear_fuse.conv.weight', (channels, 4 * channels, 1, 1))]
    spec += [
        (f'{decoder}.linear_fuse.bn.{kind}', (channels,))
        for kind in ('weight', 'bias', 'running_mean', 'running_var')
    ]
    spec += [(f'{decoder}.linear_fuse.bn.num_batches_tracked', ())]
    return dict(spec + layer(f'{decoder}.linear_pred', classes, channels, 1, 1))


def state_of(spec: dict[str, tuple]) -> dict[str, torch.Tensor]:
    """Random values; counters become small integers."""
    return {
        key: torch.randint(7, shape)
        if key.endswith(('queue_ptr', 'num_batches_tracked'))
        else torch.rand(shape)
        for key, shape in spec.items()
    }


def assert_same_bits(found: dict, expected: dict):
    """The same keys in the same order, and the same tensors."""
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape, key
        assert torch.equal(found[key], value), key


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run a tool's own main() and return what it printed; with ``refused`` the error it ended with."""

    def run(tool: str, *arguments, refused: bool = False) -> str:
        spec = importlib.util.spec_from_file_location(tool, TOOLS / f'{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
        if not refused:
            module.main()
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as end:
            module.main()
        assert end.value.code == 2
        return capsys.readouterr().err.partition('error: ')[2]

    return run


def official_file(path: Path, state: dict, **others) -> Path:
    """Write a state as the official training scripts do."""
    torch.save({'model': {f'module.{key}': value for key, value in state.items()}, **others}, path)
    return path


def load_state(path: Path) -> dict:
    return torch.load(path, weights_only=True)['state_dict']
