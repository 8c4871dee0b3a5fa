"""What all semi-supervised methods share: a student segmentor inside a wrapper that trains it."""

from collections.abc import Mapping

import torch
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.utils import add_prefix
from torch import Tensor


def _viewing(given: dict | None, of_segmentor: dict | None) -> dict:
    """Choose the wrapper's data preprocessor; MMSegmentation's own becomes one that understands views."""
    stock = (None, 'SegDataPreProcessor', 'mmseg.SegDataPreProcessor')
    if given is not None and not (isinstance(given, dict) and given.get('type') in stock):
        return given
    return {**(of_segmentor or given or {}), 'type': 'allspark_mmseg.SemiSegDataPreProcessor'}


class SemiSegmentor(BaseSegmentor):
    """A segmentor that trains another one, its student, on labelled and unlabelled images.

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
        data_preprocessor: config of a ``SemiSegDataPreProcessor``; by default it is made from the
            segmentor's, or else from the ``SegDataPreProcessor`` that the Runner hands on from the config.
        init_cfg: as in MMEngine.
        pretrained, train_cfg: None; ``mmseg.apis.init_model`` sets both on any model.

    Raises:
        ValueError: ``pretrained`` or ``train_cfg`` is given to the wrapper.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
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
        super().__init__(_viewing(data_preprocessor, segmentor.get('data_preprocessor')), init_cfg)
        self.student = MMSEG_MODELS.build(segmentor)
        self._register_load_state_dict_pre_hook(self.adopt_plain_checkpoint)

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
    def decode_head(self) -> torch.nn.Module:
        """The student's decode head."""
        return self.student.decode_head

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Features of images (N, 3, H, W), by the student."""
        return self.student.extract_feat(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits (N, K, H, W) of images (N, 3, H, W), by the student."""
        return self.student.encode_decode(inputs, batch_img_metas)

    def _forward(self, inputs: Tensor, data_samples=None) -> Tensor:
        return self.student._forward(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples=None) -> list:
        """Predict with the student; see MMSegmentation's ``EncoderDecoder.predict``.

        Args:
            inputs: (N, 3, H, W), normalised.
            data_samples: one sample per image, or None.

        Returns:
            list[SegDataSample]: with ``seg_logits`` (K, H, W) and ``pred_sem_seg`` (1, H, W).
        """
        return self.student.predict(inputs, data_samples)

    def supervised_loss(self, features: list[Tensor], logits: Tensor, data_samples: list) -> dict:
        """The losses of the student's own heads on labelled images.

        Args:
            features: the labelled images' features (N, C_i, h_i, w_i), for the auxiliary heads.
            logits: their logits (N, K, h, w) from the decode head.
            data_samples: their samples, with masks.

        Returns:
            dict: ``sup.decode.loss_*``, ``sup.decode.acc_seg``, ``sup.aux.*``.
        """
        student = self.student
        losses = add_prefix(student.decode_head.loss_by_feat(logits, data_samples), 'decode')
        if student.with_auxiliary_head:
            losses.update(student._auxiliary_head_forward_train(features, data_samples))
        return add_prefix(losses, 'sup')

    def views(self, inputs: Mapping[str, Tensor], *names: str) -> list[Tensor]:
        """The named views of a batch, checked.

        Args:
            inputs: {view: (N, 3, H, W)}, as the data preprocessor makes it.
            names: the views wanted.

        Returns:
            list[Tensor]: one (N, 3, H, W) for each name.

        Raises:
            ValueError: the batch has no such view.
        """
        present = list(inputs) if isinstance(inputs, Mapping) else None
        missing = [name for name in names if present is None or name not in present]
        if missing:
            raise ValueError(
                f'{type(self).__name__} trains on the views {list(names)}, but the batch has '
                f'{"no views" if present is None else present}. End the training pipelines with '
                f"dict(type='allspark_mmseg.Views', {missing[0]}=[...]) and sample with "
                'allspark_mmseg.DualStreamSampler.'
            )
        return [inputs[name] for name in names]

    @staticmethod
    def adopt_plain_checkpoint(state_dict: dict, prefix: str = '', *_) -> None:
        """Rename, in place, the keys of a plain segmentor's checkpoint to the student's.

        Args:
            state_dict: key -> tensor; left alone when it holds a student already.
            prefix: of the wrapper's keys; further arguments are those of PyTorch's loading hooks.
        """
        own = [key for key in state_dict if key.startswith(prefix)]
        if own and not any(key.startswith(f'{prefix}student.') for key in own):
            for key in own:
                state_dict[f'{prefix}student.{key[len(prefix) :]}'] = state_dict.pop(key)
