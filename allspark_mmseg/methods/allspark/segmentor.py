"""AllSpark: self-training with a bottleneck that rebuilds labeled features from unlabeled ones."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...pseudo_label import PseudoLabel
from ...registry import MODELS
from ..self_training import SelfTraining
from ..semi_segmentor import eval_mode
from .head import AllSparkHead


@MODELS.register_module()
class AllSpark(SelfTraining):
    r"""AllSpark (Wang et al., CVPR 2024, arXiv 2403.01818), with the losses of self-training.

    .. code-block:: text

        U, pseudo-label = student(unlabeled), eval mode, no gradient
        e1..e4          = backbone([labeled, unlabeled])
        channels of e4 (unlabeled) -> class each by U -> semantic memory
        e4 (labeled)   = cross-attention to the memory   (in warm-up: to e4 of the unlabeled images)
        e4 (unlabeled) = channel-wise self-attention
        loss            = 1/2 CE(decoder(labeled), mask) + 1/2 CE(decoder(unlabeled), pseudo-label)

    The memory is read from the moment that ``MemoryWarmUpHook`` starts it, and written from the first
    step. Differs from the release: the memory is shared by all ranks; prediction is image by image.

    Args:
        segmentor: config of the student, its ``decode_head`` an ``allspark_mmseg.AllSparkHead``.
        pseudo_keys: whose channels are the keys in the pseudo-label pass: ``'batch'``, all unlabeled
            images' (as released), or ``'image'``, each image's own (as in prediction).
        kwargs: as in ``SelfTraining``.

    Raises:
        ValueError: the student's decode head is not an ``AllSparkHead``, or ``pseudo_keys`` is unknown.
    """

    def __init__(self, segmentor: dict, *, pseudo_keys: str = 'batch', **kwargs):
        super().__init__(segmentor, **kwargs)
        if not isinstance(self.decode_head, AllSparkHead):
            raise ValueError(
                f'AllSpark: segmentor.decode_head is a {type(self.decode_head).__name__}, expected '
                "dict(type='allspark_mmseg.AllSparkHead', bottleneck=dict(...), decoder=<that head>)."
            )
        if pseudo_keys not in ('batch', 'image'):
            raise ValueError(f"AllSpark: pseudo_keys is {pseudo_keys!r}, expected 'batch' or 'image'.")
        self.pseudo_keys = pseudo_keys
        self.register_buffer('memory_ready', torch.zeros((), dtype=torch.bool))

    @property
    def memory(self) -> torch.nn.Module:
        """The bottleneck's ``SemanticMemory``."""
        return self.decode_head.bottleneck.memory

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step; adds ``memory.filled``, in [0, 1], to what self-training returns."""
        losses = super().loss(inputs, data_samples)
        losses['memory.filled'] = self.memory.filled.mean()
        return losses

    def decode(self, features: list[Tensor], num_labeled: int, pseudo: PseudoLabel) -> Tensor:
        """Logits (Bl + Bu, K, h, w), each stream through its own attention."""
        return self.decode_head.forward_semi(
            features, num_labeled, pseudo.logits, read_memory=bool(self.memory_ready)
        )

    @torch.no_grad()
    def check_input_size(self, images: Tensor) -> None:
        """Check that feature maps of images (N, 3, H, W) fill a row of the memory.

        Raises:
            ValueError: they do not.
        """
        with eval_mode(self.student):
            feature = self.extract_feat(images)[self.decode_head.bottleneck_index]
        self.decode_head.bottleneck.check_map_size(feature.shape[2:])

    def class_statistics(self) -> dict[str, Tensor]:
        """Return the class shares of the pseudo-labels and of the filled memory: {name: (K,) float}."""
        return super().class_statistics() | {'memory.filled': self.memory.filled}

    def check_resume(self, source: str, stored: Mapping[str, Tensor]) -> None:
        """Check that the checkpoint's memory fits this model.

        Args:
            source (str): Name of the checkpoint, for messages.
            stored (dict): Its state dict.

        Raises:
            ValueError: The memory has another shape.
        """
        for key, value in self.state_dict().items():
            if key.endswith('memory.rows') and key in stored and stored[key].shape != value.shape:
                raise ValueError(
                    f'{source}: its memory (classes, channels, positions) is {tuple(stored[key].shape)}, the '
                    f'config makes {tuple(value.shape)}. Resume with the crop and classes the run was started '
                    'with, or start a new run from its weights (load_from).'
                )

    def decode_unlabeled(self, decode_head: torch.nn.Module, features: list[Tensor]) -> Tensor:
        """Logits (Bu, K, h, w) of the pseudo-label pass."""
        return decode_head(features, per_image=self.pseudo_keys == 'image')
