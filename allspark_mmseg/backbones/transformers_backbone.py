"""Any backbone of the Hugging Face Hub, through the library ``transformers``."""

from __future__ import annotations

import copy
import difflib
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, initialize
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS
from ..utils import join_first, message_of, nearest_multiple, require

OWNER = 'TransformersBackbone'
INSTALL = "pip install 'allspark-mmseg[hub]'"
HUB = 'https://huggingface.co'


@MODELS.register_module()
class TransformersBackbone(BaseModule):
    """A backbone of Hugging Face ``transformers``: DINOv2, DINOv3, Swin, ConvNeXt, BEiT, ViTDet, ResNet, ...

    .. code-block:: python

        backbone=dict(
            type='allspark_mmseg.TransformersBackbone',
            model='facebook/dinov3-vits16-pretrain-lvd1689m',  # or a folder with config.json and weights
            out_indices=(3, 6, 9, 12))

    ``transformers`` builds the network. The keys of the state dict are those of ``transformers`` behind
    ``model.``. The weights are loaded when training starts (``init_weights``), as for any backbone of
    MMSegmentation. A model that is built for testing loads nothing. ``torchvision`` and ``timm`` are not
    needed.

    **Offline.** ``model`` can be a local folder. A model of the Hub is read from the cache of
    ``huggingface_hub`` if it is there. ``config`` with a ``model_type`` describes the whole network. Then
    nothing is read except the weights. ``StartupCheckHook`` writes this description into the config of the
    run, so checkpoints of the run need no Hub.

    **Sizes.** If the configuration has a patch size P and an image is not a multiple of P, the image is
    resized bilinearly to the nearest multiple (at least P). So the features cover the whole image, and the
    logits, which MMSegmentation resizes to the image, stay aligned. ``transformers`` would cut off the rest.

    **Training.** Parameters that no feature uses (mask tokens, norms and layers after the last of
    ``out_indices``) are frozen, so distributed training does not wait for their gradients. Names for
    ``paramwise_cfg.custom_keys`` are those of the state dict, for example ``backbone.model.embeddings``.

    Args:
        model (str, optional): Name on the Hub, or folder. None: random weights, ``config`` is needed.
        out_indices (Sequence[int]): Stages whose feature maps are returned, in ascending order. The numbers
            are those of ``transformers``: 0 is the stem or the embedding, and i is the output of stage i (of
            block i in a plain transformer). Negative numbers count from the last one.
        config (dict, optional): Keys of the ``transformers`` configuration. They replace those of ``model``.
            With ``model_type`` they are the whole configuration.
        frozen (bool): Freeze all parameters and stay in evaluation mode.
        with_cp (bool): Recompute each block in the backward pass to save memory.
        init_cfg (dict or list[dict], optional): MMEngine's initialization config, for weights of another
            source with the keys of ``state_dict``.

    Raises:
        ImportError: ``transformers`` is not installed.
        FileNotFoundError: The configuration of ``model`` is neither in a folder nor reachable.
        ValueError: ``model`` and ``config`` are both missing, ``transformers`` has no such backbone, a key or
            a value of ``config`` is wrong, ``out_indices`` are not stages, or ``with_cp`` is not supported.
    """

    def __init__(
        self,
        model: str | None = None,
        out_indices: Sequence[int] = (-1,),
        config: Mapping | None = None,
        frozen: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.source = model
        self.frozen = frozen
        network_class, settings = _read_config(model, dict(config or {}))
        settings.out_indices = _check_out_indices(out_indices, settings.stage_names)
        # some configurations name bfloat16; mixed precision is the task of the optimizer wrapper
        settings.dtype = torch.float32
        with _explaining_config():
            self.model: nn.Module = network_class(settings).float()
        self.patch_size: int | Sequence[int] = getattr(settings, 'patch_size', None) or 1
        if with_cp:
            self._recompute_blocks()
        if frozen:
            self.requires_grad_(False)
            self.eval()
        else:
            self._freeze_unused()

    @property
    def channels(self) -> list[int]:
        """Channels of the feature maps, for ``in_channels`` of the head."""
        network: Any = self.model
        return list(network.channels)

    @property
    def description(self) -> dict[str, Any]:
        """The complete configuration, with ``model_type``: the argument ``config`` that needs no Hub."""
        settings: Any = self.model.config
        state = settings.to_diff_dict() | {'model_type': settings.model_type}
        own = ('out_indices', 'out_features', 'stage_names', 'dtype', 'architectures', 'transformers_version')
        known = _config_keys(type(settings)) - {*own}  # files on the Hub can have others
        return {key: value for key, value in state.items() if key in known and not key.startswith('_')}

    def init_weights(self) -> None:
        """Load the weights of ``model``, or those that ``init_cfg`` names. ``transformers`` drew the others.

        Raises:
            FileNotFoundError: The weights are neither in a folder nor reachable.
            ValueError: The weights fill no parameter.
        """
        if self.is_init:
            return
        if self.init_cfg:
            initialize(self, self.init_cfg)
        elif self.source is not None:
            self._load_weights(self.source)
        self._is_init = True

    def train(self, mode: bool = True) -> TransformersBackbone:
        """Set the training mode. A ``frozen`` backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute one feature map for each of ``out_indices``.

        Args:
            x (Tensor): Normalized images of shape (N, 3, H, W).

        Returns:
            tuple[Tensor, ...]: Feature maps of shape (N, C_i, H_i, W_i). C_i are ``channels``.
        """
        size = self._whole_patches(x.shape[2:])
        if size != list(x.shape[2:]):
            x = resize(x, size=size, mode='bilinear', align_corners=False)
        return tuple(self.model(x).feature_maps)

    def _whole_patches(self, size: Sequence[int]) -> list[int]:
        patch = self.patch_size
        patches = (patch, patch) if isinstance(patch, int) else patch
        return [nearest_multiple(side, patch) for side, patch in zip(size, patches, strict=True)]

    @torch.enable_grad()
    def _freeze_unused(self) -> None:
        """Freeze the parameters that no feature depends on."""
        network: Any = self.model
        side = getattr(network.config, 'image_size', None) or 224
        size = self._whole_patches((side, side) if isinstance(side, int) else side)
        try:
            # without storage, so that this takes no time for large networks
            with torch.device('meta'):
                shapes = type(network)(copy.deepcopy(network.config)).eval()
                image = torch.zeros(1, getattr(network.config, 'num_channels', 3), *size)
            total = sum(feature.sum() for feature in shapes(image).feature_maps)
            names, parameters = zip(*shapes.named_parameters(), strict=True)
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        except (NotImplementedError, RuntimeError, ValueError) as error:  # networks that read values
            print_log(
                f'{OWNER}: it is not known which parameters of the {type(network).__name__} no feature uses '
                f'({message_of(error)}). Distributed training can need find_unused_parameters=True.',
                logger='current',
                level=logging.WARNING,
            )
            return
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is None:
                network.get_parameter(name).requires_grad_(False)

    def _recompute_blocks(self) -> None:
        network: Any = self.model
        valid = network.supports_gradient_checkpointing
        require(OWNER, 'with_cp', True, valid, f'False, because {type(network).__name__} cannot recompute')
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})

    def _load_weights(self, source: str) -> None:
        """Load the weights of a folder or of the Hub, and report what they leave random."""
        network: Any = self.model
        logging_of_library = _import_transformers().logging
        verbosity = logging_of_library.get_verbosity()
        logging_of_library.set_verbosity_error()  # the messages below replace its table of keys
        try:
            with _reading(source, 'weights'):
                loaded, report = type(network).from_pretrained(
                    source,
                    config=network.config,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        finally:
            logging_of_library.set_verbosity(verbosity)
        own = network.state_dict()
        missing = sorted({*report['missing_keys'], *(key for key, *_ in report['mismatched_keys'])})
        if len(missing) == len(own):
            raise ValueError(
                f'{OWNER}: the weights of {source} fill none of the {len(own)} tensors of the '
                f'{type(network).__name__}. They have keys like {sorted(report["unexpected_keys"])[:3]}, '
                f'expected {list(own)[:3]}. Check config.'
            )
        if missing:
            print_log(
                f'{OWNER}: {source} fills {len(own) - len(missing)} of {len(own)} tensors of the '
                f'{type(network).__name__}. These stay random: {join_first(missing, 20, ", ")}.',
                logger='current',
                level=logging.WARNING,
            )
        network.load_state_dict(loaded.state_dict())


def _import_transformers() -> ModuleType:
    try:
        return importlib.import_module('transformers')
    except ImportError as error:
        raise ImportError(f'{OWNER} needs the package transformers (5 or newer): run "{INSTALL}".') from error


def _read_config(model: str | None, config: dict[str, Any]) -> tuple[type, Any]:
    """Return the class of the network and its configuration."""
    transformers = _import_transformers()
    if 'model_type' in config:
        kind = config.pop('model_type')
        known = kind in transformers.CONFIG_MAPPING
        require(OWNER, 'config.model_type', kind, known, 'a model type of transformers, for example "dinov2"')
        _check_keys(transformers.CONFIG_MAPPING[kind], config)
        with _explaining_config():
            settings = transformers.CONFIG_MAPPING[kind](**config)
    elif model is None:
        raise ValueError(
            f'{OWNER}: model is None and config has no model_type. Set model to a name on the Hub or a '
            "folder, or config=dict(model_type='dinov2', ...) for random weights."
        )
    else:
        with _reading(model, 'configuration'):
            settings = transformers.AutoConfig.from_pretrained(model)
        _check_keys(type(settings), config)
        if config:
            with _explaining_config():
                settings = transformers.AutoConfig.from_pretrained(model, **config)
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING
    if type(settings) not in mapping:
        raise ValueError(
            f'{OWNER}: transformers has no backbone of the type {settings.model_type!r}, expected one of '
            f'{", ".join(sorted(transformers.models.auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES))}.'
        )
    if not hasattr(settings, 'stage_names'):
        raise ValueError(
            f'{OWNER}: {settings.model_type!r} of transformers names no stages, so its features cannot be '
            'chosen. Use another model type.'
        )
    return mapping[type(settings)], settings


def _config_keys(kind: type) -> set[str]:
    """Return the keys of a class of configurations of ``transformers``."""
    settings: Any = kind()
    return {*settings.to_dict(), *settings.attribute_map, 'attn_implementation'}


def _check_keys(kind: type, config: Mapping[str, Any]) -> None:
    """Refuse keys that ``transformers`` would store and not use."""
    known = _config_keys(kind)
    for key in config:
        close = difflib.get_close_matches(key, known, n=1)
        expected = f'{close[0]!r}' if close else f'one of {", ".join(sorted(known))}'
        require(
            OWNER,
            'a key of config',
            key,
            key in known,
            f'{expected}, because {kind.__name__} has no such key',
        )


@contextmanager
def _explaining_config() -> Iterator[None]:
    """Name ``config`` in the errors that ``transformers`` raises for wrong values."""
    try:
        yield
    except ImportError:
        raise  # of a package that the network needs
    except Exception as error:  # of many classes, among them KeyError and huggingface_hub's own
        raise ValueError(f'{OWNER}: transformers refuses a value of config: {message_of(error)}') from error


@contextmanager
def _reading(source: str, what: str) -> Iterator[None]:
    """Explain in one sentence why a folder or the Hub cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            found = ', '.join(sorted(path.name for path in Path(source).iterdir())[:5]) or 'nothing'
            raise FileNotFoundError(
                f'{OWNER}: cannot read the {what} of model {source}: the folder has {found}, expected '
                'config.json and model.safetensors (or pytorch_model.bin) as transformers save them.'
            ) from error
        gated = 'gated' in str(error).lower()
        remedy = 'accept its terms on this page and run "hf auth login", or ' if gated else ''
        raise FileNotFoundError(
            f'{OWNER}: cannot read the {what} of model {source!r}: it is no folder here, and {HUB}/{source} '
            f'{"needs access rights" if gated else "does not exist or cannot be reached"}; {remedy}run '
            f'"hf download {source} --local-dir FOLDER" on a machine with access, and set model to this '
            'folder.'
        ) from error


def _check_out_indices(indices: Sequence[int], stages: Sequence[str]) -> list[int]:
    """Return the indices without negative numbers."""
    count = len(stages)
    valid = bool(indices) and all(isinstance(index, int) and -count <= index < count for index in indices)
    positive = [index % count for index in indices] if valid else []
    valid = valid and positive == sorted(set(positive))
    names = ', '.join(f'{index} ({name})' for index, name in enumerate(stages))
    require(OWNER, 'out_indices', tuple(indices), valid, f'ascending numbers of the stages {names}')
    return positive
