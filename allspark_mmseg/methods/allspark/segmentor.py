"""AllSpark: self-training with a bottleneck that rebuilds labeled features from unlabeled ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...pseudo_label import PseudoLabel, pseudo_label_loss
from ...registry import MODELS
from ...thresholds import ConfidenceThreshold, build_threshold
from ...utils import HostValue, require
from ..semi_segmentor import SemiSegmentor
from ..student import eval_mode
from ..views import Samples, Views
from .head import AllSparkHead
from .semantic_memory import SemanticMemory


@MODELS.register_module()
class AllSpark(SemiSegmentor):
    r"""AllSpark (Wang et al., CVPR 2024, arXiv 2403.01818), with the losses of self-training.

    .. code-block:: text

        U, pseudo      = student(weak) in eval mode: logits and their argmax
        e1..e4         = backbone([labeled, unlabeled])
        memory        <- channels of e4 (unlabeled), grouped by class with U           (section 3.3)
        e4 (labeled)   = cross-attention to the memory; during warm-up to e4 (unlabeled)  (section 3.2)
        e4 (unlabeled) = channel-wise self-attention                                    (section 3.2)
        loss           = w_l CE(decoder(labeled), mask) + w_u CE(decoder(unlabeled), pseudo)

    ``MemoryWarmUpHook`` ends the warm-up. The memory is written from the first step. There are two
    differences from the release: all processes share one memory, and the prediction for an image does not
    depend on the other images of the batch.

    Args:
        segmentor (dict): Config of the student; its ``decode_head`` is an ``allspark_mmseg.AllSparkHead``.
        labeled_weight (float): w_l; 0.5 in the paper.
        unlabeled_weight (float): w_u; 0.5 in the paper.
        unlabeled_view (str): The view on which the student learns the pseudo-labels of ``weak``. The paper
            uses ``weak`` itself.
        threshold (float or dict): Minimum confidence of a valid pixel, in [0, 1]; 0 in the paper. Or the
            config of an adaptive threshold, see ``build_threshold``.
        ignore_padding (bool): Exclude padding from the loss on pseudo-labels. The release includes it. Needs
            ``LoadEmptyAnnotations`` in the unlabeled pipeline.
        pseudo_keys (str): The keys of the attention during pseudo-labeling. ``'batch'``: the channels of all
            images of the batch, as released. ``'image'``: the channels of the same image, as in prediction.
        kwargs: As in ``SemiSegmentor``. With a teacher, the teacher makes the pseudo-labels.

    Raises:
        ValueError: The student's decode head is not an ``AllSparkHead``, ``threshold`` is invalid, or
            ``pseudo_keys`` is unknown.
    """

    trains_method_parameters = True
    memory_ready: Tensor

    def __init__(
        self,
        segmentor: dict,
        *,
        labeled_weight: float = 0.5,
        unlabeled_weight: float = 0.5,
        unlabeled_view: str = 'weak',
        threshold: float | Mapping = 0.0,
        ignore_padding: bool = False,
        pseudo_keys: str = 'batch',
        **kwargs: Any,
    ) -> None:
        known = pseudo_keys in ('batch', 'image')
        require('AllSpark', 'pseudo_keys', pseudo_keys, known, "'batch' or 'image'")
        super().__init__(segmentor, **kwargs)
        if not isinstance(self.decode_head, AllSparkHead):
            raise ValueError(
                f'AllSpark: segmentor.decode_head is a {type(self.decode_head).__name__}, expected '
                "dict(type='allspark_mmseg.AllSparkHead', bottleneck=dict(...), decoder=<that head>)."
            )
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.unlabeled_view = unlabeled_view
        self.threshold = build_threshold('AllSpark', threshold, self.num_classes)
        self.ignore_padding = ignore_padding
        self.pseudo_keys = pseudo_keys
        self.register_buffer('memory_ready', torch.zeros((), dtype=torch.bool))
        self._ready_on_host = HostValue()

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak`` and ``unlabeled_view``."""
        return ('labeled', 'weak', self.unlabeled_view)

    @property
    def memory(self) -> SemanticMemory:
        """The memory of the student's bottleneck."""
        return self.decode_head.bottleneck.memory

    @property
    def reads_memory(self) -> bool:
        """Whether labeled images attend to the memory: the value of ``memory_ready``."""
        return bool(self._ready_on_host.read(self.memory_ready))

    @reads_memory.setter
    def reads_memory(self, value: bool) -> None:
        self._ready_on_host.write(self.memory_ready, value)

    def loss(self, inputs: Views, data_samples: Samples) -> dict[str, Tensor]:
        """Run one training step.

        Args:
            inputs (dict): {view: (N, 3, H, W)}, with the needed views.
            data_samples (dict): {view: N samples}. Samples of ``labeled`` have masks.
                If padding is ignored, samples of ``weak`` have the maps of ``LoadEmptyAnnotations``.

        Returns:
            dict[str, Tensor]: ``sup.*`` and ``unsup.loss_ce``, weighted; ``pseudo.*`` and ``memory.filled``
            (in [0, 1]) for the log.
        """
        labeled, weak, unlabeled = self.select_views(inputs, *self.needed_views)

        # U and pseudo-labels, before the training pass moves the running statistics
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))

        # the head writes the unlabeled channels to the memory; the labeled channels attend to it when ready
        features = self.extract_feat(torch.cat([labeled, unlabeled]))
        logits = self.decode_head.forward_semi(
            features, len(labeled), pseudo.logits, read_memory=self.reads_memory
        )
        unlabeled_logits = self.resize_to_input(logits[len(labeled) :], unlabeled.shape[2:])

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        losses['unsup.loss_ce'] = self.unlabeled_weight * pseudo_label_loss(unlabeled_logits, pseudo)
        return losses | self.log_statistics(pseudo) | {'memory.filled': self.memory.filled.mean()}

    def make_pseudo_labels(
        self,
        images: Tensor,
        threshold: float | ConfidenceThreshold = 0.0,
        padding: Tensor | None = None,
        **head_options: object,
    ) -> PseudoLabel:
        """Label images (N, 3, H, W) with the keys that ``pseudo_keys`` chooses; see ``SemiSegmentor``."""
        head_options = {'per_image': self.pseudo_keys == 'image'} | head_options
        return super().make_pseudo_labels(images, threshold, padding, **head_options)

    @torch.no_grad()
    def check_input_size(self, images: Tensor) -> None:
        """Check that the feature map of training images fits the memory.

        Args:
            images (Tensor): (N, 3, H, W).

        Raises:
            ValueError: The feature map has another size than a row of the memory.
        """
        with eval_mode(self.student):
            feature = self.extract_feat(images)[self.decode_head.bottleneck_index]
        self.decode_head.bottleneck.check_map_size(feature.shape[2:])

    def class_statistics(self) -> dict[str, Tensor]:
        """Return the class shares of the pseudo-labels and of the filled memory, each (K,) float."""
        return super().class_statistics() | {'memory.filled': self.memory.filled}

    def check_resume(self, source: str, stored: Mapping[str, Tensor]) -> None:
        """Check that the memory of a checkpoint fits this model.

        Args:
            source (str): Name of the checkpoint, for the message.
            stored (dict): Its state dict.

        Raises:
            ValueError: The memory has another shape.
        """
        for key, value in self.state_dict().items():
            if key.endswith('memory.rows') and key in stored and stored[key].shape != value.shape:
                raise ValueError(
                    f'{source}: its memory (classes, channels, positions) is {tuple(stored[key].shape)}, the '
                    f'config makes {tuple(value.shape)}. Resume with the crop and classes of the stored run, '
                    'or start a new run from its weights (load_from).'
                )
