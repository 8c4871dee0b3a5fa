"""Checks of the weights that ``init_cfg`` names, for any module of a model."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_external_models
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..backbones import TransformersBackbone
from ..methods import SemiSegmentor
from ..utils import dicts_in, join_first

_KINDS = ('Pretrained', 'Pretrained_Part', PretrainedInit)


def watch_pretrained(model: nn.Module) -> list[RemovableHandle]:
    """Read every checkpoint that an ``init_cfg`` names, and check what it fills when it is loaded.

    MMEngine logs keys that do not match and goes on, so a backbone can train from random weights. Some
    backbones of MMSegmentation rename keys before they load. So the check sees the state dict that is loaded.

    Args:
        model (nn.Module): The model, before ``init_weights``.

    Returns:
        list[RemovableHandle]: The hooks of the modules. Remove them when the weights are initialized.

    Raises:
        ValueError: A checkpoint cannot be read. While the weights are initialized: it fills no tensor of its
            module.
    """
    handles = []
    for name, module in model.named_modules():
        if name.startswith('teacher.') and isinstance(model, SemiSegmentor):
            continue  # the teacher copies the student
        for init_cfg in _pretrained_configs(module):
            key = _config_key(model, name)
            _read(key, init_cfg)
            watch = _Watch(key, module, str(init_cfg['checkpoint']))
            watch.handle = module._register_load_state_dict_pre_hook(watch)
            handles.append(watch.handle)
    return handles


def describe_hub_backbones(config: Any, model: nn.Module) -> None:
    """Write the configuration of a ``TransformersBackbone`` into the config of the run, in place.

    The checkpoints contain this config, so they can be used where the Hub cannot be reached.

    Args:
        config (ConfigDict): The config of the model.
        model (nn.Module): The model that was built from it.
    """
    backbones = [module for module in model.modules() if isinstance(module, TransformersBackbone)]
    if not backbones:
        return
    for node in dicts_in(config):
        if str(node.get('type', '')).endswith('TransformersBackbone'):
            matching = [backbone for backbone in backbones if backbone.source == node.get('model')]
            if matching:
                node['config'] = matching[0].description


def _pretrained_configs(module: nn.Module) -> list[Mapping]:
    init_cfg = getattr(module, 'init_cfg', None)
    configs = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg
    if not isinstance(configs, list | tuple):
        return []
    return [each for each in configs if isinstance(each, Mapping) and each.get('type') in _KINDS]


def _config_key(model: nn.Module, name: str) -> str:
    """Return the config key of a module, for messages."""
    parts = name.split('.') if name else []
    if isinstance(model, SemiSegmentor) and parts[:1] == ['student']:
        parts[0] = 'segmentor'
    return '.'.join(['model', *parts, 'init_cfg'])


def _read(key: str, init_cfg: Mapping) -> None:
    """Read a checkpoint, which downloads it if needed, and check its prefix."""
    path = str(init_cfg['checkpoint'])
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger=None)
    except Exception as error:  # no network, no package, no file, a damaged file, an unknown name
        raise ValueError(
            f'{key}: cannot load checkpoint {path} ({_reason(error)}). {_remedy(path)}'
        ) from error
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else {}
    prefix = init_cfg.get('prefix')
    if prefix and not any(name.startswith(f'{prefix.rstrip(".")}.') for name in state):
        raise ValueError(
            f'{key}: checkpoint {path} has no key with the prefix {prefix!r}. It has keys like '
            f'{list(state)[:3]}. Correct prefix.'
        )


def _reason(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f'{type(error).__name__}: {text}'[:200]


def _remedy(path: str) -> str:
    scheme, separator, name = path.partition('://')
    if not separator:
        return 'Expected a file. Correct the path, or remove init_cfg to train from random weights.'
    address = path
    if scheme in ('open-mmlab', 'openmmlab'):
        address = get_external_models().get(name, path)
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    if not address.startswith('http'):
        return 'Set checkpoint to a local file with these weights.'
    return (
        f'If this machine has no access to {address}, copy the file from another machine to '
        f'{folder / Path(address).name}, or set checkpoint to a local file.'
    )


class _Watch:
    """A hook that checks a state dict before a module loads it, once.

    Args:
        key (str): Config key, for the messages.
        module (nn.Module): The module.
        source (str): Path of the checkpoint.
    """

    handle: RemovableHandle

    def __init__(self, key: str, module: nn.Module, source: str) -> None:
        self.key = key
        self.module = module
        self.source = source

    def __call__(self, state_dict: Mapping[str, Tensor], prefix: str, *_: object) -> None:
        """Check a state dict.

        Raises:
            ValueError: It has no tensor of the module.
        """
        if prefix:
            return  # a parent loads its own weights
        self.handle.remove()
        # integers are indices and counters, which are not learned
        own = {name: value for name, value in self.module.state_dict().items() if value.is_floating_point()}
        missing = [
            name
            for name, value in own.items()
            if name not in state_dict or state_dict[name].shape != value.shape
        ]
        owner = type(self.module).__name__
        if len(missing) == len(own):
            raise ValueError(
                f'{self.key}: checkpoint {self.source} fills none of the {len(own)} tensors of the {owner}. '
                f'It has keys like {list(state_dict)[:3]}, expected {list(own)[:3]}. '
                f'{self._suggest(state_dict, own)}'
            )
        if missing:
            print_log(
                f'{self.key}: checkpoint {self.source} fills {len(own) - len(missing)} of {len(own)} tensors '
                f'of the {owner}. These stay random: {join_first(missing, 20, ", ")}.',
                logger='current',
                level=logging.WARNING,
            )

    @staticmethod
    def _suggest(state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
        """Find a prefix with which keys of the checkpoint are keys of the module."""
        first = next(iter(own), '')
        for name in state_dict:
            if first and name.endswith(f'.{first}'):
                return f'Set prefix={name[: -len(first)]!r} in init_cfg.'
        return 'Convert it with tools/model_converters, or name weights of this network.'
