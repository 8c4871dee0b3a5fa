"""Base class of all semi-supervised methods: a segmentor with a student and an optional teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.models.utils import resize
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from ..pseudo_label import PseudoLabel, padded_pixels
from ..teacher import Teacher
from ..thresholds import ConfidenceThreshold
from ..utils import full_precision, require
from .student import adopt_plain_state, check_decode_head, eval_mode, multi_view_preprocessor
from .supervised import auxiliary_losses, head_losses
from .views import Samples, Views, select_views


class SemiSegmentor(BaseSegmentor):
    """Base class of the semi-supervised methods.

    A method implements ``needed_views`` and one training step, ``loss(inputs, data_samples)``. Checkpoints
    hold the student and the teacher; a checkpoint of a plain segmentor loads into both.

    Args:
        segmentor (dict): Config of the student, an ``EncoderDecoder`` or a subclass.
        teacher (dict, optional): Arguments of ``Teacher``; None for no teacher.
        predict_on (str): The segmentor that predicts, ``'student'`` or ``'teacher'``.
        data_preprocessor (dict, optional): Config of a ``MultiViewSegDataPreProcessor``. Default: the one of
            the segmentor, otherwise the one of the Runner.
        init_cfg (dict, optional): As in MMEngine.
        pretrained, train_cfg (None): ``mmseg.apis.init_model`` sets both on every model.

    Raises:
        ValueError: An argument has a wrong value, or the method cannot train the student's decode head.
    """

    ignore_padding: bool = False
    trains_method_parameters: bool = False  # of heads: those that a plain EncoderDecoder does not train
    teacher: Teacher | None
    # WarmStartHook sets these two: the supervised phase, and the ramp-up of the unlabeled terms after it
    supervised_only: bool = False
    unlabeled_scale: float = 1.0

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        predict_on: str = 'student',
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        name = type(self).__name__
        for key, value in (('pretrained', pretrained), ('train_cfg', train_cfg)):
            require(name, key, value, value is None, 'None, because it belongs in segmentor')
        valid = predict_on == 'student' or (predict_on == 'teacher' and teacher is not None)
        expected = "'student', or 'teacher' if teacher=dict(...) is set"
        require(name, 'predict_on', predict_on, valid, expected)
        preprocessor = multi_view_preprocessor(data_preprocessor, segmentor.get('data_preprocessor'))
        super().__init__(preprocessor, init_cfg)
        self.student: EncoderDecoder = MMSEG_MODELS.build(segmentor)
        check_decode_head(name, self.student)
        self.teacher = None if teacher is None else Teacher(self.student, **teacher)
        self.predict_on = predict_on
        # class shares of the latest pseudo-labels, for the log
        self.register_buffer('pseudo_share', torch.zeros(self.num_classes), persistent=False)
        self._register_load_state_dict_pre_hook(self.adopt_plain_checkpoint)

    def init_weights(self) -> None:
        """Initialize the student and copy it to the teacher, at the first call only."""
        first = not self.is_init
        super().init_weights()
        if first and self.teacher is not None:
            self.teacher.copy_from(self.student)

    @property
    def extended_heads(self) -> list[nn.Module]:
        """Heads of the student with parameters that a plain ``EncoderDecoder`` does not train."""
        return [part for part in self.student.modules() if getattr(part, 'has_method_parameters', False)]

    @property
    def needed_views(self) -> tuple[str, ...]:
        """Names of the views that ``loss`` takes."""
        return ('labeled',)

    @property
    def networks(self) -> dict[str, EncoderDecoder]:
        """The segmentors: ``'student'``, and ``'teacher'`` if there is one."""
        return {'student': self.student} | ({} if self.teacher is None else {'teacher': self.teacher.module})

    @property
    def predictor(self) -> EncoderDecoder:
        """The segmentor that predicts. In a supervised phase it is the student."""
        return self.networks[self.predictor_name]

    @property
    def predictor_name(self) -> str:
        """``'student'`` or ``'teacher'``: the segmentor that predicts."""
        return 'student' if self.supervised_only else self.predict_on

    @property
    def align_corners(self) -> bool:
        """Whether the resizing of logits aligns the corners."""
        return self.student.align_corners

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.student.num_classes

    @property
    def out_channels(self) -> int:
        """Number of channels of the logits."""
        return self.student.out_channels

    @property
    def decode_head(self) -> BaseDecodeHead:
        """The student's decode head."""
        return self.student.decode_head

    @property
    def adaptive_threshold(self) -> ConfidenceThreshold | None:
        """The attribute ``threshold`` if it is a module; None if it is a number or missing."""
        threshold = getattr(self, 'threshold', None)
        return threshold if isinstance(threshold, ConfidenceThreshold) else None

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Return the student's features, each (N, C_i, h_i, w_i), of images (N, 3, H, W)."""
        return self.student.extract_feat(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return the predictor's logits (N, K, H, W) of images (N, 3, H, W)."""
        return self.predictor.encode_decode(inputs, batch_img_metas)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Run in one of MMSegmentation's modes. ``'loss'`` is a step of the current phase.

        A supervised step trains the student alone, as a plain segmentor, on the view ``labeled``.
        """
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode)
        if self.supervised_only:
            features = self.extract_feat(inputs['labeled'])
            return self.supervised_loss(features, self.decode_head(features), data_samples['labeled'])
        return {
            name: value * self.unlabeled_scale if name.startswith('unsup.loss') else value
            for name, value in self.loss(inputs, data_samples).items()
        }

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        return self.predictor._forward(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list[SegDataSample]:
        """Predict images (N, 3, H, W); see MMSegmentation's ``EncoderDecoder.predict``."""
        return self.predictor.predict(inputs, data_samples)

    def select_views(self, inputs: Views, *names: str) -> list[Tensor]:
        """Return views of a batch, each (N, 3, H, W)."""
        return select_views(type(self).__name__, inputs, names)

    def padding_mask(self, data_samples: Samples, view: str) -> Tensor | None:
        """Return the padding (N, H, W) bool of a view, or None if the loss includes padding."""
        return padded_pixels(data_samples[view]) if self.ignore_padding else None

    def resize_to_input(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Resize logits (N, K, h, w) to ``size`` (H, W), in float32 or higher precision."""
        # labels and losses need full precision, also in mixed-precision training
        return resize(full_precision(logits), size, mode='bilinear', align_corners=self.align_corners)

    @torch.no_grad()
    def make_pseudo_labels(
        self,
        images: Tensor,
        threshold: float | ConfidenceThreshold = 0.0,
        padding: Tensor | None = None,
        **head_options: object,
    ) -> PseudoLabel:
        """Label images with the teacher, or with the student in eval mode if there is no teacher.

        Args:
            images (Tensor): (N, 3, H, W).
            threshold, padding: As in ``PseudoLabel.from_logits``.
            head_options: Further arguments of the decode head's ``forward``.
        """
        labeler = self.networks.get('teacher', self.student)
        with eval_mode(labeler):
            logits = labeler.decode_head(labeler.extract_feat(images), **head_options)
        # otherwise older PyTorch trains the student with weights cast here, without gradient (pytorch#165068)
        torch.clear_autocast_cache()
        return PseudoLabel.from_logits(self.resize_to_input(logits, images.shape[2:]), threshold, padding)

    def supervised_loss(
        self, features: Sequence[Tensor], logits: Tensor, data_samples: list, weight: float = 1.0
    ) -> dict[str, Tensor]:
        """Compute the losses of the student's heads on the labeled images, the first N of a batch.

        Args:
            features (Sequence[Tensor]): (B, C_i, h_i, w_i), B >= N, for the auxiliary heads.
            logits (Tensor): (B, K, h, w), from the decode head.
            data_samples (list[SegDataSample]): N samples with masks.
            weight (float): Weight of the losses.

        Returns:
            dict[str, Tensor]: ``sup.decode.loss_*``, ``sup.decode.acc_seg``, ``sup.aux*.*``.
        """
        student, count = self.student, len(data_samples)
        logits = full_precision(logits[:count])
        losses = add_prefix(head_losses(student.decode_head, logits, data_samples), 'decode')
        if student.with_auxiliary_head:
            features = [feature[:count] for feature in features]
            losses.update(auxiliary_losses(student, features, data_samples))
        return {f'sup.{name}': value * weight if 'loss' in name else value for name, value in losses.items()}

    def log_statistics(self, pseudo: PseudoLabel) -> dict[str, Tensor]:
        """Compute statistics of pseudo-labels, before any mixing, for the log.

        They are scalars; ``pseudo.classes`` is the number of classes with more than 0.1 % of the pixels. The
        entries of an adaptive threshold are ``pseudo.threshold`` and ``pseudo.threshold_min``.
        """
        self.pseudo_share.copy_(pseudo.class_share())
        statistics = {
            'pseudo.confidence': pseudo.confidence.mean(),
            'pseudo.confident': pseudo.confident_share,
            'pseudo.classes': (self.pseudo_share > 1e-3).sum().float(),
        }
        adaptive = self.adaptive_threshold
        return statistics if adaptive is None else statistics | adaptive.statistics()

    def class_statistics(self) -> dict[str, Tensor]:
        """Return statistics (K,) float per class, for the log."""
        adaptive = self.adaptive_threshold
        thresholds = {} if adaptive is None else {'pseudo.threshold': adaptive.class_thresholds}
        return {'pseudo.share': self.pseudo_share} | thresholds

    def check_input_size(self, images: Tensor) -> None:
        """Check images (N, 3, H, W) before the first training step."""

    def check_resume(self, source: str, stored: Mapping[str, Tensor]) -> None:
        """Check the state dict ``stored`` of the checkpoint ``source`` before a run resumes from it."""

    def adopt_plain_checkpoint(self, state_dict: dict, prefix: str = '', *_: object) -> None:
        """Rename, in place, the keys of a plain checkpoint to the student's; see ``adopt_plain_state``."""
        adopt_plain_state(state_dict, prefix, None if self.teacher is None else self.teacher.steps)
