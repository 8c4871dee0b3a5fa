"""Any backbone of the Hugging Face Hub, through the library ``transformers``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, initialize
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS
from ..utils import join_first, message_of, nearest_multiple, require
from .transformers_config import (
    OWNER,
    check_out_indices,
    config_keys,
    explaining_config,
    import_transformers,
    read_config,
    reading,
)


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
        network_class, settings = read_config(model, dict(config or {}))
        settings.out_indices = check_out_indices(out_indices, settings.stage_names)
        # some configurations name bfloat16; mixed precision is the task of the optimizer wrapper
        settings.dtype = torch.float32
        with explaining_config():
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
        known = config_keys(type(settings)) - {*own}  # files on the Hub can have others
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
        logging_of_library = import_transformers().logging
        verbosity = logging_of_library.get_verbosity()
        logging_of_library.set_verbosity_error()  # the messages below replace its table of keys
        try:
            with reading(source, 'weights'):
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
