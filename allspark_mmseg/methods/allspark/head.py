"""Any decode head behind an AllSpark bottleneck."""

from mmengine.model import BaseModule
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor

from ...registry import MODELS
from .bottleneck import AllSparkBottleneck


@MODELS.register_module()
class AllSparkHead(BaseModule):
    """A decode head that sees the bottleneck's output in place of the deepest feature.

    .. code-block:: python

        decode_head=dict(
            type='allspark_mmseg.AllSparkHead',
            bottleneck=dict(in_channels=512, crop_size=(513, 513)),
            decoder=dict(type='SegformerHead', ...))          # any MMSegmentation decode head

    In a plain ``EncoderDecoder`` it trains and tests like the head it wraps: every image goes through the
    labeled stream, with keys from the whole batch in training and from the image itself in prediction;
    the memory is not used, and the unlabeled stream gets no gradient (so distributed training needs
    ``find_unused_parameters=True`` there). The ``AllSpark`` segmentor calls ``forward_semi`` instead.

    A plain checkpoint of the same network without the bottleneck loads into the decoder.

    Args:
        bottleneck: arguments of ``AllSparkBottleneck``; ``num_classes`` is the decoder's when not given.
        decoder: config of a decode head.
        bottleneck_index: which input feature the bottleneck replaces; -1, the default, is the deepest.

    Raises:
        ValueError: bottleneck and decoder disagree on the number of classes, or on the channels of the
            feature.
    """

    def __init__(self, bottleneck: dict, decoder: dict, bottleneck_index: int = -1, init_cfg=None):
        super().__init__(init_cfg)
        self.decoder = MMSEG_MODELS.build(decoder)
        bottleneck = {'num_classes': self.decoder.num_classes, **bottleneck}
        if bottleneck['num_classes'] != self.decoder.num_classes:
            raise ValueError(
                f'AllSparkHead: bottleneck.num_classes is {bottleneck["num_classes"]}, decoder.num_classes '
                f"is {self.decoder.num_classes}; they must be equal (leave the bottleneck's out)."
            )
        self.bottleneck = AllSparkBottleneck(**bottleneck)
        self.bottleneck_index = bottleneck_index
        _check_channels(self.decoder, bottleneck['in_channels'], bottleneck_index)
        self._register_load_state_dict_pre_hook(self._adopt_plain_head)

    @property
    def num_classes(self) -> int:
        """Number of classes K of the decoder."""
        return self.decoder.num_classes

    @property
    def out_channels(self) -> int:
        """Channels of the decoder's logits."""
        return self.decoder.out_channels

    @property
    def align_corners(self) -> bool:
        """How the decoder's logits are resized."""
        return self.decoder.align_corners

    @property
    def threshold(self) -> float | None:
        """Threshold of the decoder for a single output channel."""
        return self.decoder.threshold

    @property
    def ignore_index(self) -> int:
        """The label that the decoder's loss ignores."""
        return self.decoder.ignore_index

    def forward(self, inputs: list[Tensor], *, per_image: bool | None = None) -> Tensor:
        """Decode, every image through the labeled stream.

        Args:
            inputs: features (B, C_i, h_i, w_i).
            per_image: each image's keys are its own channels, not the batch's; by default outside training.

        Returns:
            Tensor: the decoder's logits (B, K, H, W).
        """
        per_image = not self.training if per_image is None else per_image
        return self.decoder(
            self._replaced(inputs, lambda feature: self.bottleneck(feature, per_image=per_image))
        )

    def forward_semi(
        self, inputs: list[Tensor], num_labeled: int, pseudo_logits: Tensor, *, read_memory: bool
    ) -> Tensor:
        """Decode labeled and unlabeled images together; arguments as in the bottleneck's method.

        Args:
            inputs: features (Bl + Bu, C_i, h_i, w_i), labeled images first.
            num_labeled: Bl.
            pseudo_logits: (Bu, K, H, W).
            read_memory: labeled images attend to the memory.

        Returns:
            Tensor: the decoder's logits (Bl + Bu, K, H, W).
        """
        return self.decoder(
            self._replaced(
                inputs,
                lambda feature: self.bottleneck.forward_semi(
                    feature, num_labeled, pseudo_logits, read_memory=read_memory
                ),
            )
        )

    def loss(self, inputs: list[Tensor], batch_data_samples: list, train_cfg: dict) -> dict:
        """Losses of the decoder (MMSegmentation's head interface)."""
        return self.loss_by_feat(self.forward(inputs), batch_data_samples)

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict:
        """Losses of the decoder from its logits (B, K, H, W)."""
        return self.decoder.loss_by_feat(seg_logits, batch_data_samples)

    def predict(self, inputs: list[Tensor], batch_img_metas: list[dict], test_cfg: dict) -> Tensor:
        """Logits (B, K, H, W) at the size of the input image (MMSegmentation's head interface)."""
        return self.decoder.predict_by_feat(self.forward(inputs), batch_img_metas)

    def _replaced(self, inputs: list[Tensor], replace) -> list[Tensor]:
        features = list(inputs)
        features[self.bottleneck_index] = replace(features[self.bottleneck_index])
        return features

    @staticmethod
    def _adopt_plain_head(state_dict: dict, prefix: str, *_) -> None:
        """Read ``prefix.X`` as ``prefix.decoder.X`` when the checkpoint's head has no bottleneck."""
        own = [key for key in state_dict if key.startswith(prefix)]
        if not any(key.startswith((f'{prefix}decoder.', f'{prefix}bottleneck.')) for key in own):
            for key in own:
                state_dict[f'{prefix}decoder.{key[len(prefix) :]}'] = state_dict.pop(key)


def _check_channels(decoder, in_channels: int, index: int) -> None:
    """Compare the bottleneck's channels with what the decoder expects of the same feature, if it takes it."""
    indices = decoder.in_index if isinstance(decoder.in_index, (list, tuple)) else [decoder.in_index]
    widths = decoder.in_channels if isinstance(decoder.in_channels, (list, tuple)) else [decoder.in_channels]
    if len(indices) != len(widths):  # features concatenated by the decoder: only the sum is known
        return
    expected = dict(zip(indices, widths, strict=True))
    deepest = max(indices)
    width = expected.get(deepest if index == -1 and deepest >= 0 else index, in_channels)
    if width != in_channels:
        raise ValueError(
            f'AllSparkHead: bottleneck.in_channels is {in_channels}, but the decoder takes {width} channels '
            f'of that feature (in_channels={decoder.in_channels}, in_index={decoder.in_index}).'
        )
