"""Training iterations of S4Former, run by the released ``EncoderDecoder.forward_train``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .network import METHOD, SIZE, THRESHOLD, Setup, build_network
from .record import differs_from_inverse, is_identity

LEARNING_RATE, MOMENTUM = 0.002, 0.9


@dataclass
class Iteration:
    """What went into an iteration, what came out of it, and what was drawn.

    Args:
        teacher_logits: Logits of the teacher (N, K, H, W).
        mask: Confident pixels (N, H, W).
        unconfident: Share of unconfident pixels for each call of the student's backbone.
        student_logits: Logits of the student for each perturbed view.
        sup_logits: Logits of the labeled images.
        images: Images of each call of the loss on pseudo-labels.
        labels: Pseudo-labels of each call of that loss.
        losses: The losses by name.
        total: Their sum.
        grads: Gradients by parameter.
        boxes: CutMix boxes.
        permutations: PatchShuffle's permutations.
        teacher: Parameters and buffers of the teacher after its update.
    """

    teacher_logits: Tensor
    mask: Tensor
    unconfident: list
    student_logits: list[Tensor]
    sup_logits: Tensor
    images: list[Tensor]
    labels: list[Tensor]
    losses: dict[str, float]
    total: float
    grads: dict[str, Tensor]
    boxes: list[list[int]]
    permutations: list
    teacher: dict[str, Tensor]


Run = tuple[list[Iteration], dict[str, Tensor]]


def tap(owner: Any, name: str, take: Callable[[tuple, dict, Any], Any]) -> None:
    """Call ``take`` with the arguments and the result of each call of a method."""
    method = getattr(owner, name)

    def tapped(*args: Any, **options: Any) -> Any:
        result = method(*args, **options)
        take(args, options, result)
        return result

    setattr(owner, name, tapped)


class Trainer:
    """Trains a new copy of the small network.

    Args:
        setup: Initial state and batch.
        mix_teacher: Mix the teacher's logits like the labels before the released loss sees them. The release
            does not do this.
        options: Options of the network.
    """

    def __init__(self, setup: Setup, mix_teacher: bool = False, **options: Any):
        self.setup, self.mix_teacher = setup, mix_teacher
        self.boxes = setup.reference.boxes
        self.net = build_network(setup.reference, **{**METHOD, **options})
        self.net.load_state_dict(setup.init)
        self.net.train()
        groups = [
            dict(params=[parameter], lr=LEARNING_RATE * (10 if 'head' in name else 1))
            for name, parameter in self.net.named_parameters()
            if parameter.requires_grad
        ]
        self.optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=0.0)
        self.kept: dict[str, Any] = {}
        self._tap_network()

    def _tap_network(self) -> None:
        def keep_teacher(args: tuple, options: dict, result: dict) -> None:
            self.kept.update(teacher_logits=result['seg_logits'].clone(), mask=result['conf_mask'].clone())

        def append(name: str, value: Any) -> None:
            self.kept.setdefault(name, []).append(value)

        net = self.net
        tap(net, 'extract_teacher_info_ema', keep_teacher)
        tap(
            net, 'extract_feat', lambda args, options, result: append('unconfident', options.get('attn_mask'))
        )
        tap(
            net.decode_head,
            'forward_get_logits',
            lambda args, options, result: append('student_logits', result.detach().clone()),
        )
        tap(
            net.decode_head,
            'losses',
            lambda args, options, result: self.kept.update(sup_logits=args[0].detach().clone()),
        )
        compute_pseudo_loss = net.compute_pseudo_loss

        def tapped_loss(student: dict, teacher: dict) -> dict:
            append('images', student['img'].clone())
            append('labels', teacher['hard_seg_label'].clone())
            if self.mix_teacher and len(self.kept['images']) == 2:
                teacher = dict(teacher, seg_logits=self._mixed(teacher['seg_logits']))
            return compute_pseudo_loss(student, teacher)

        net.compute_pseudo_loss = tapped_loss

    def _mixed(self, logits: Tensor) -> Tensor:
        """Paste the boxes of the next image into logits (N, K, H, W)."""
        own = torch.ones(len(self.boxes), 1, SIZE, SIZE)
        for i, (left, top, right, bottom) in enumerate(self.boxes):
            own[i, :, top:bottom, left:right] = 0
        return logits * own + logits.roll(-1, 0) * (1 - own)

    def _batch(self) -> tuple[Tensor, list[dict], Tensor]:
        """Return images, meta data and labels as the release's loader collates them."""
        setup = self.setup
        streams = (('sup', 2), ('unsup_student', 3), ('unsup_teacher', 3))
        metas = [dict(tag=tag, filename=f'{tag[-3:]}{i}') for tag, n in streams for i in range(n)]
        for meta in metas[2:]:  # a name joins the two views of an image
            meta['filename'] = meta['filename'][-1]
        images = torch.cat([setup.labeled, setup.strong, setup.weak])
        unused = setup.label[:1].expand(6, -1, -1, -1) * 0
        return images, metas, torch.cat([setup.label, unused])

    def step(self, index: int) -> Iteration:
        """Run one iteration."""
        self.kept.clear()
        self.boxes.clear()
        images, metas, labels = self._batch()
        losses = self.net.forward_train(images, metas, gt_semantic_seg=labels, iter=index)
        total, _ = self.net._parse_losses(losses)
        self.optimizer.zero_grad()
        total.backward()
        iteration = Iteration(
            losses={name: float(value) for name, value in losses.items()},
            total=float(total),
            grads={
                name: parameter.grad.clone()
                for name, parameter in self.net.named_parameters()
                if parameter.grad is not None
            },
            boxes=list(self.boxes),
            permutations=[meta.get('PatchMixIndex') for meta in metas[2:5]],
            teacher={name: value.clone() for name, value in self.net.state_dict().items() if '_ema' in name},
            **self.kept,
        )
        self.optimizer.step()
        return iteration

    def run(self, steps: int) -> Run:
        """Return the iterations and the final state."""
        iterations = [self.step(index) for index in range(steps)]
        return iterations, {name: value.clone() for name, value in self.net.state_dict().items()}


def is_decided(iteration: Iteration) -> bool:
    """Return whether rounding cannot decide what is confident.

    No pixel is at the threshold, no tie is at the border of the confident half of the patches, and a fair
    share of the pixels is confident.
    """
    conf = iteration.teacher_logits.softmax(1).amax(1)
    rows = iteration.unconfident[1].flatten(1).sort(1)[0]
    return bool(
        (conf - THRESHOLD).abs().min() > 1e-7
        and (rows[:, 8] - rows[:, 7]).min() > 0
        and 0.2 < iteration.mask.double().mean() < 0.8
    )


def is_suitable(run: Run) -> bool:
    """Return whether the iterations are decided, and the first one has both kinds of permutations."""
    iterations = run[0]
    drawn = iterations[0].permutations
    return (
        all(map(is_decided, iterations))
        and any(map(is_identity, drawn))
        and any(map(differs_from_inverse, drawn))
    )
