"""Recorded network outputs for whole training steps of CSS."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .record import Draws

BATCH, CLASSES, DIM, CROP, MAP = 2, 5, 8, 17, 5


@dataclass(frozen=True)
class Step:
    """One training step.

    Args:
        name: Prefix of its keys.
        variant: ``'mix'``, ``'cross'`` or ``'baseline'``.
        epoch: Epoch of the step.
        dataset: ``'VOC'`` or, for OHEM, ``'CityScapes'``.
        tau_s: Temperature of the softmax similarity.
        strong_threshold: Threshold of hard pixels.
        warmup: Warm-up epochs of the cross variant.
        disputed: Share of the cells in which logits and representations of the teacher disagree.
        allow_confident_disputes: Whether disputed pixels of the mix variant may be confident. If not, the
            weight of an image does not depend on how disputed pixels are counted.
        keep: Prefixes of the keys to store, without the name; None stores all.
    """

    name: str
    variant: str
    epoch: int
    dataset: str = 'VOC'
    tau_s: float = 0.1
    strong_threshold: float = 0.8
    warmup: int = 0
    disputed: float = 0.25
    allow_confident_disputes: bool = False
    keep: tuple[str, ...] | None = None

    @property
    def is_baseline(self) -> bool:
        return self.variant == 'baseline'

    @property
    def settles_disputes(self) -> bool:
        """Whether the teacher's confidence has to be lowered at disputed pixels."""
        return self.variant == 'mix' and not self.allow_confident_disputes


@dataclass
class Outputs:
    """Network outputs of a step, and the label of its labeled images.

    Args:
        teacher_pred: Logits of the teacher on the unlabeled images (B, C, h, w).
        teacher_rep: Representations of the teacher on the unlabeled images (B, D, h, w).
        student: Logits and representations of the student, which get gradients.
        label: Label (B, S, S); -1 is ignored.
    """

    teacher_pred: Tensor
    teacher_rep: Tensor
    student: dict[str, Tensor]
    label: Tensor


def blank_images() -> Tensor:
    """Return images (B, 3, S, S), which the recorded networks do not look at."""
    return torch.zeros(BATCH, 3, CROP, CROP)


class RecordedNetwork(nn.Module):
    """A network that returns recorded outputs in the order of its calls."""

    def __init__(self, *answers: tuple[Tensor, Tensor]):
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(()))
        self.answers, self.calls = answers, 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self.answers[(self.calls - 1) % len(self.answers)]


def draw_basis(draws: Draws) -> Tensor:
    """Draw an orthonormal direction for each class (C, D)."""
    return torch.linalg.qr(draws.normal(DIM, DIM))[0][:CLASSES]


class OutputDraws:
    """Draws outputs that fit to label maps (N, h, w).

    Args:
        draws: Source of the random numbers.
        basis: Directions of the classes (C, D).
    """

    def __init__(self, draws: Draws, basis: Tensor):
        self.draws, self.basis = draws, basis

    def logits(self, label: Tensor, scale: float) -> Tensor:
        """Draw logits (N, C, h, w) that favor the label by ``scale``."""
        one_hot = F.one_hot(label, CLASSES).permute(0, 3, 1, 2)
        return scale * one_hot + self.draws.grid(len(label), CLASSES, MAP, MAP, parts=2048)

    def representations(self, label: Tensor, noise: float) -> Tensor:
        """Draw representations (N, D, h, w) along the directions of the label."""
        directions = 4 * self.basis[label].permute(0, 3, 1, 2)
        return (
            torch.round(1024 * (directions + self.draws.grid(len(label), DIM, MAP, MAP, scale=noise))) / 1024
        )

    def outputs(self, step: Step) -> Outputs:
        """Draw all outputs of a step."""
        truth = self.draws.regions(2 * BATCH, MAP, MAP, list(range(CLASSES)))
        labeled, unlabeled = truth[:BATCH], truth[BATCH:]
        pred, rep = self.logits(unlabeled, 7.0), self.representations(unlabeled, 0.4)
        disputed = (self.draws.uniform(BATCH, MAP, MAP) < step.disputed)[:, None]
        rep = torch.where(disputed, self.representations((unlabeled + 1) % CLASSES, 0.4), rep)
        pred = torch.where(disputed, torch.round(pred * 256) / 2048, pred)
        scale = 4.5 if step.is_baseline else 2.0  # the baseline's indicator is the student's softmax
        student = dict(
            pred_labeled=self.logits(labeled, scale),
            rep_labeled=self.representations(labeled, 0.9),
            pred_unlabeled=self.logits(unlabeled, scale),
            rep_unlabeled=self.representations(unlabeled, 0.9),
        )
        for output in student.values():
            output.requires_grad_(True)
        return Outputs(pred, rep, student, self.label(labeled))

    def label(self, truth: Tensor) -> Tensor:
        """Enlarge a label map (B, h, w) to (B, S, S) and draw ignored pixels."""
        label = F.interpolate(truth[:, None].float(), size=(CROP, CROP), mode='nearest')[:, 0].long()
        label[self.draws.uniform(BATCH, CROP, CROP) < 0.05] = -1
        label[0, :3] = -1
        return label
