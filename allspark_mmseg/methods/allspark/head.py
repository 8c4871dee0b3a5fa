"""A decode head behind an AllSpark bottleneck."""

from typing import Any

from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor

from ...registry import MODELS
from ...utils import require
from .bottleneck import AllSparkBottleneck


@MODELS.register_module()
class AllSparkHead(BaseModule):
    """A decode head that gets the bottleneck's output in place of the deepest feature.

    .. code-block:: python

        decode_head=dict(
            type='allspark_mmseg.AllSparkHead',
            bottleneck=dict(in_channels=512, crop_size=(513, 513)),
            decoder=dict(type='SegformerHead', ...))          # any MMSegmentation decode head

    The ``AllSpark`` method calls ``forward_semi``. In a plain ``EncoderDecoder``, the head trains and tests
    like its decoder. Every image then goes through the labeled stream. The keys of an image are the channels
    of the whole batch in training, and its own channels in prediction. The memory is not used. The unlabeled
    stream gets no gradient, so distributed training needs ``find_unused_parameters=True``.

    A plain checkpoint of the same network without the bottleneck loads into the decoder.

    Args:
        bottleneck (dict): Arguments of ``AllSparkBottleneck``. The default of ``num_classes`` is the value of
            the decoder.
        decoder (dict): Config of a decode head.
        bottleneck_index (int): Index of the feature that the bottleneck replaces; -1 is the deepest one that
            the decoder reads.
        init_cfg (dict, optional): As in MMEngine.

    Raises:
        ValueError: Bottleneck and decoder differ in the number of classes or in the channels of the feature,
            or the decoder does not read the feature.
    """

    # in a plain EncoderDecoder, the unlabeled stream gets no gradient
    has_method_parameters = True

    def __init__(
        self, bottleneck: dict, decoder: dict, bottleneck_index: int = -1, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.decoder: BaseDecodeHead = MMSEG_MODELS.build(decoder)
        classes = self.decoder.num_classes
        bottleneck = {'num_classes': classes, **bottleneck}
        found, expected = bottleneck['num_classes'], f'{classes}, which is decoder.num_classes'
        require('AllSparkHead', 'bottleneck.num_classes', found, found == classes, expected)
        self.bottleneck = AllSparkBottleneck(**bottleneck)
        indices = _as_list(self.decoder.in_index)
        deepest = indices[-1] if min(indices) < 0 else max(indices)
        self.bottleneck_index = deepest if bottleneck_index == -1 else bottleneck_index
        _check_feature(self.decoder, bottleneck['in_channels'], self.bottleneck_index)
        self._register_load_state_dict_pre_hook(self._adopt_plain_head)

    @property
    def num_classes(self) -> int:
        """Number of classes K of the decoder."""
        return self.decoder.num_classes

    @property
    def out_channels(self) -> int:
        """Number of channels of the decoder's logits."""
        return self.decoder.out_channels

    @property
    def align_corners(self) -> bool:
        """Whether the resizing of the decoder's logits aligns the corners."""
        return self.decoder.align_corners

    @property
    def threshold(self) -> float | None:
        """Threshold of the decoder for a single output channel."""
        return self.decoder.threshold

    @property
    def ignore_index(self) -> int:
        """Label that the decoder's loss ignores."""
        return self.decoder.ignore_index

    def forward(self, inputs: list[Tensor], *, per_image: bool | None = None) -> Tensor:
        """Decode all images through the labeled stream.

        Args:
            inputs (list[Tensor]): Features (B, C_i, h_i, w_i).
            per_image (bool, optional): The keys of an image are its own channels, not those of the batch. By
                default True in eval mode only.

        Returns:
            Tensor: Logits (B, K, H, W).
        """
        features, index = list(inputs), self.bottleneck_index
        per_image = not self.training if per_image is None else per_image
        features[index] = self.bottleneck(features[index], per_image=per_image)
        return self.decoder(features)

    def forward_semi(
        self, inputs: list[Tensor], num_labeled: int, pseudo_logits: Tensor, *, read_memory: bool
    ) -> Tensor:
        """Decode labeled and unlabeled images; see ``AllSparkBottleneck.forward_semi``.

        Args:
            inputs (list[Tensor]): Features (Bl + Bu, C_i, h_i, w_i), labeled images first.
            num_labeled (int): Bl.
            pseudo_logits (Tensor): (Bu, K, H, W).
            read_memory (bool): Labeled images attend to the memory.

        Returns:
            Tensor: Logits (Bl + Bu, K, H, W).
        """
        features, index = list(inputs), self.bottleneck_index
        features[index] = self.bottleneck.forward_semi(
            features[index], num_labeled, pseudo_logits, read_memory=read_memory
        )
        return self.decoder(features)

    def loss(self, inputs: list[Tensor], batch_data_samples: list, train_cfg: dict) -> dict[str, Tensor]:
        """Compute the decoder's losses from features (B, C_i, h_i, w_i)."""
        return self.loss_by_feat(self.forward(inputs), batch_data_samples)

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """Compute the decoder's losses from logits (B, K, H, W)."""
        return self.decoder.loss_by_feat(seg_logits, batch_data_samples)

    def predict(self, inputs: list[Tensor], batch_img_metas: list[dict], test_cfg: dict) -> Tensor:
        """Return logits (B, K, H, W) at the size of the images from features (B, C_i, h_i, w_i)."""
        return self.decoder.predict_by_feat(self.forward(inputs), batch_img_metas)

    @staticmethod
    def _adopt_plain_head(state_dict: dict, prefix: str, *_: Any) -> None:
        """Rename ``prefix.X`` to ``prefix.decoder.X`` when the checkpoint's head has no bottleneck."""
        own = [key for key in state_dict if key.startswith(prefix)]
        if not any(key.startswith((f'{prefix}decoder.', f'{prefix}bottleneck.')) for key in own):
            for key in own:
                state_dict[f'{prefix}decoder.{key[len(prefix) :]}'] = state_dict.pop(key)


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _check_feature(decoder: BaseDecodeHead, in_channels: int, index: int) -> None:
    """Check that the decoder reads the replaced feature, with the number of channels of the bottleneck."""
    indices, widths = _as_list(decoder.in_index), _as_list(decoder.in_channels)
    if min([index, *indices]) >= 0:  # negative ones count from a number of features that is not known here
        require(
            'AllSparkHead',
            'bottleneck_index',
            index,
            index in indices,
            f'one of in_index={indices} of the decoder',
        )
    if len(indices) != len(widths):  # the decoder concatenates its features, so only the sum is known
        return
    width = dict(zip(indices, widths, strict=True)).get(index, in_channels)
    message = f'{width}, as in the decoder (in_channels={decoder.in_channels}, in_index={decoder.in_index})'
    require('AllSparkHead', 'bottleneck.in_channels', in_channels, width == in_channels, message)
