"""What all semi-supervised methods share: a student segmentor, and perhaps a teacher, in a wrapper."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from mmseg.models.decode_heads import DAHead, DDRHead, EncHead, IterativeDecodeHead, PIDHead
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.models.utils import resize
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.utils import add_prefix
from torch import Tensor, nn

from ..pseudo_label import PseudoLabel, padded_pixels
from ..teacher import Teacher

# heads whose forward gives more than logits
_OTHER_HEADS = (DAHead, DDRHead, EncHead, IterativeDecodeHead, PIDHead)


def _multi_view_preprocessor(given: dict | None, of_segmentor: dict | None) -> dict:
    """Choose the wrapper's data preprocessor; MMSegmentation's own becomes one that understands views."""
    stock = (None, 'SegDataPreProcessor', 'mmseg.SegDataPreProcessor')
    if given is not None and not (isinstance(given, dict) and given.get('type') in stock):
        return given
    return {**(of_segmentor or given or {}), 'type': 'allspark_mmseg.MultiViewSegDataPreProcessor'}


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Keep a module in eval mode; each of its parts returns to its own mode, frozen norms among them."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


class SemiSegmentor(BaseSegmentor):
    """A segmentor that trains another one, its student, on labeled and unlabeled images.

    The student is built from its config as it stands, so any MMSegmentation model can be wrapped; the
    wrapper's data preprocessor is the student's own, made to understand views, unless one is given.
    A method subclasses this and writes ``loss``:

    .. code-block:: text

        loss(inputs, data_samples):           inputs: {view: (N, 3, H, W)}, data_samples: {view: [sample]}
            supervised_loss(features, logits, samples)     -> {'sup.decode.loss_ce': ...}
            its own terms                                  -> {'unsup.loss_ce': ...}
        predict(), _forward(), encode_decode()             -> the student's

    Checkpoints hold the student under ``student.``; a plain MMSegmentation checkpoint loads into it.

    Args:
        segmentor: config of an ``EncoderDecoder`` or a subclass of it.
        data_preprocessor: config of a ``MultiViewSegDataPreProcessor``; by default it is made from the
            segmentor's, or else from the ``SegDataPreProcessor`` that the Runner hands on from the config.
        init_cfg: as in MMEngine.
        pretrained, train_cfg: None; ``mmseg.apis.init_model`` sets both on any model.

    Raises:
        ValueError: ``pretrained`` or ``train_cfg`` is given to the wrapper; the student's decode head does
            not make logits from features alone, or not one for each class; the teacher shall predict, but
            there is none.
    """

    ignore_padding = False

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        predict_on: str = 'student',
        data_preprocessor: dict | None = None,
        init_cfg=None,
        pretrained=None,
        train_cfg=None,
    ):
        if pretrained is not None or train_cfg is not None:
            raise ValueError(
                f'{type(self).__name__}: pretrained and train_cfg belong into segmentor; found '
                f'pretrained={pretrained!r}, train_cfg={train_cfg!r} on the wrapper.'
            )
        super().__init__(
            _multi_view_preprocessor(data_preprocessor, segmentor.get('data_preprocessor')), init_cfg
        )
        self.student = MMSEG_MODELS.build(segmentor)
        _check_head(type(self).__name__, self.student)
        self.teacher = None if teacher is None else Teacher(self.student, **teacher)
        self.predict_on = predict_on
        if predict_on not in ('student', 'teacher') or (predict_on == 'teacher' and teacher is None):
            raise ValueError(
                f"{type(self).__name__}: predict_on is {predict_on!r}, expected 'student'"
                + (', or give the method a teacher=dict(...).' if teacher is None else " or 'teacher'.")
            )
        # the latest pseudo-labels' class shares, for the log alone
        self.register_buffer('pseudo_share', torch.zeros(self.num_classes), persistent=False)
        self._register_load_state_dict_pre_hook(self.adopt_plain_checkpoint)

    def init_weights(self) -> None:
        """Initialize the student, and make the teacher equal to it; the first time only, as in MMEngine."""
        first = not self.is_init
        super().init_weights()
        if first and self.teacher is not None:
            self.teacher.copy_from(self.student)

    @property
    def predictor(self) -> nn.Module:
        """The segmentor that predicts."""
        return self.teacher.module if self.predict_on == 'teacher' else self.student

    @property
    def align_corners(self) -> bool:
        """How the student's logits are resized."""
        return self.student.align_corners

    @property
    def num_classes(self) -> int:
        """Number of classes K of the student's decode head."""
        return self.student.num_classes

    @property
    def out_channels(self) -> int:
        """Channels of the student's logits."""
        return self.student.out_channels

    @property
    def decode_head(self) -> nn.Module:
        """The student's decode head."""
        return self.student.decode_head

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Features of images (N, 3, H, W), by the student."""
        return self.student.extract_feat(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits (N, K, H, W) of images (N, 3, H, W), by whoever predicts."""
        return self.predictor.encode_decode(inputs, batch_img_metas)

    def _forward(self, inputs: Tensor, data_samples=None) -> Tensor:
        return self.predictor._forward(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples=None) -> list:
        """Predict with the student, or the teacher; see MMSegmentation's ``EncoderDecoder.predict``.

        Args:
            inputs: (N, 3, H, W), normalized.
            data_samples: one sample per image, or None.

        Returns:
            list[SegDataSample]: with ``seg_logits`` (K, H, W) and ``pred_sem_seg`` (1, H, W).
        """
        return self.predictor.predict(inputs, data_samples)

    def resize_to_input(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, K, h, w) at the ``size`` (H, W) of their images, in float32 or better."""
        # mixed precision ends here: a label would otherwise be decided among rounded logits
        return resize(_full_precision(logits), size, mode='bilinear', align_corners=self.align_corners)

    @torch.no_grad()
    def make_pseudo_labels(
        self, images: Tensor, threshold: float = 0.0, padding: Tensor | None = None
    ) -> PseudoLabel:
        """Label images by the teacher, or without one by the student in eval mode.

        Args:
            images: (N, 3, H, W).
            threshold: confidence from which a pixel counts, in [0, 1].
            padding: (N, H, W) bool, pixels that are no part of the image.

        Returns:
            PseudoLabel: at the size of the images.
        """
        labeler = self.student if self.teacher is None else self.teacher.module
        with eval_mode(labeler):
            logits = self.decode_unlabeled(labeler.decode_head, labeler.extract_feat(images))
        # autocast keeps the weights it has cast; in older PyTorch the student would go on to train with those
        # cast here, without a gradient (pytorch/pytorch#165068)
        torch.clear_autocast_cache()
        return PseudoLabel.from_logits(self.resize_to_input(logits, images.shape[2:]), threshold, padding)

    def padding_mask(self, data_samples: dict[str, list], view: str) -> Tensor | None:
        """(N, H, W) bool, pixels of an unlabeled view that do not count; None if all do."""
        return padded_pixels(data_samples[view]) if self.ignore_padding else None

    def decode_unlabeled(self, decode_head: nn.Module, features: list[Tensor]) -> Tensor:
        """Logits (N, K, h, w) from which unlabeled images are labeled."""
        return decode_head(features)

    def supervised_loss(
        self, features: list[Tensor], logits: Tensor, data_samples: list, weight: float = 1.0
    ) -> dict:
        """The losses of the student's own heads on labeled images.

        Args:
            features: (B, C_i, h_i, w_i), for the auxiliary heads; the labeled images come first.
            logits: (B, K, h, w) from the decode head, in the same order.
            data_samples: the N labeled images' samples, with masks.
            weight: of the losses.

        Returns:
            dict: ``sup.decode.loss_*``, ``sup.decode.acc_seg``, ``sup.aux.*``.
        """
        student, count = self.student, len(data_samples)
        logits = _full_precision(logits[:count])  # mixed precision ends before the losses
        features = [feature[:count] for feature in features]
        losses = add_prefix(student.decode_head.loss_by_feat(logits, data_samples), 'decode')
        if student.with_auxiliary_head:
            losses.update(student._auxiliary_head_forward_train(features, data_samples))
        return {f'sup.{name}': value * weight if 'loss' in name else value for name, value in losses.items()}

    def log_statistics(self, pseudo: PseudoLabel) -> dict[str, Tensor]:
        """Numbers for the log that tell how the pseudo-labels do.

        Args:
            pseudo: the labels of this step, before any mixing.

        Returns:
            dict: ``pseudo.confidence`` (mean, in [0, 1]), ``pseudo.confident`` (share of the images' pixels
            that count) and ``pseudo.classes`` (number of classes that more than 0.1 % of the pixels have).
        """
        self.pseudo_share.copy_(pseudo.class_share())
        return {
            'pseudo.confidence': pseudo.confidence.mean(),
            'pseudo.confident': pseudo.confident_share,
            'pseudo.classes': (self.pseudo_share > 1e-3).sum().float(),
        }

    def class_statistics(self) -> dict[str, Tensor]:
        """Return numbers for each class, for the log: {name: (K,) float}."""
        return {'pseudo.share': self.pseudo_share}

    def check_resume(self, source: str, stored: Mapping[str, Tensor]) -> None:
        """Check that a run can go on from a checkpoint.

        Args:
            source (str): Name of the checkpoint, for messages.
            stored (dict): Its state dict.

        Raises:
            ValueError: The checkpoint holds state of another shape.
        """

    @property
    def needed_views(self) -> tuple[str, ...]:
        """The views that ``loss`` takes."""
        return ('labeled',)

    def select_views(self, inputs: Mapping[str, Tensor], *names: str) -> list[Tensor]:
        """The named views of a batch, checked.

        Args:
            inputs: {view: (N, 3, H, W)}, as the data preprocessor makes it.
            names: the views wanted.

        Returns:
            list[Tensor]: one (N, 3, H, W) for each name.

        Raises:
            ValueError: the batch has no such view, or its unlabeled views are not of the same images.
        """
        present = list(inputs) if isinstance(inputs, Mapping) else None
        missing = [name for name in names if present is None or name not in present]
        if missing:
            raise ValueError(
                f'{type(self).__name__} trains on the views {list(names)}, but the batch has '
                f'{"no views" if present is None else present}. End the training pipelines with '
                f"dict(type='allspark_mmseg.MultiView', {missing[0]}=[...]) and sample with "
                'allspark_mmseg.DualStreamSampler.'
            )
        counts = {name: len(inputs[name]) for name in names if name != 'labeled'}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f'{type(self).__name__}: a batch has {counts} images of each view, expected equally many; '
                'end the pipelines of all unlabeled data sets with the same views.'
            )
        return [inputs[name] for name in names]

    def check_input_size(self, images: Tensor) -> None:
        """Check, before the first iteration, what a method demands of images (N, 3, H, W) in training."""

    def adopt_plain_checkpoint(self, state_dict: dict, prefix: str = '', *_) -> None:
        """Make, in place, a plain segmentor's checkpoint the student's, and a student's the teacher's too.

        Args:
            state_dict: key -> tensor; left alone where it holds a student, or a teacher, already.
            prefix: of the wrapper's keys; further arguments are those of PyTorch's loading hooks.
        """
        own = [key for key in state_dict if key.startswith(prefix)]
        student, teacher = f'{prefix}student.', f'{prefix}teacher.'
        if own and not any(key.startswith(student) for key in own):
            for key in own:
                state_dict[student + key[len(prefix) :]] = state_dict.pop(key)
        if own and self.teacher is not None and not any(key.startswith(teacher) for key in own):
            for key in [key for key in state_dict if key.startswith(student)]:
                state_dict[f'{teacher}module.{key[len(student) :]}'] = state_dict[key]
            state_dict[f'{teacher}steps'] = torch.zeros_like(self.teacher.steps)


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_head(method: str, segmentor: nn.Module) -> None:
    """Check that the student makes its logits as ``decode_head(features)``."""
    head = getattr(segmentor, 'decode_head', None)
    decoder = getattr(head, 'decoder', head)  # behind a bottleneck
    if (
        not hasattr(head, 'loss_by_feat')
        or isinstance(decoder, _OTHER_HEADS)
        or len(_required_arguments(decoder.forward)) != 1
    ):
        raise ValueError(
            f'{method}: segmentor is a {type(segmentor).__name__} whose decode_head is a '
            f'{type(decoder).__name__}; expected an EncoderDecoder with one decode head that makes logits, '
            'and nothing else, from features alone (no cascade, no mask classification).'
        )
    if head.out_channels != head.num_classes:
        # a single channel would always be certain of class 0, and its loss zero
        raise ValueError(
            f'{method}: the decode head has out_channels={head.out_channels} for num_classes='
            f'{head.num_classes}, expected a channel for each class; for two classes leave out out_channels '
            'and use_sigmoid.'
        )


def _required_arguments(function) -> list[inspect.Parameter]:
    given = inspect.signature(function).parameters.values()
    return [each for each in given if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
