"""Vectors of S4Former's losses, pseudo-labels and moving average.

Executed: methods of ``mmseg/models/segmentors/encoder_decoder.py`` and the head's losses.
"""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .record import Draws, Vectors
from .reference import Reference

MODES = ('unsup_only_kl', 'reweight_unsup_only_kl', 'kl', 'all')


def record_pseudo_labels(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record labels and masks at three thresholds; some pixels have ties of five or two classes."""
    logits = draws.grid(2, 5, 8, 9, scale=2.5)
    logits[0, :, 0, :3] = 0.0
    logits[1, 1, 2], logits[1, 3, 2] = 9.0, 9.0
    vectors.put('pseudo.logits', logits)
    for tag, threshold in (('95', 0.95), ('50', 0.5), ('20', 0.2)):
        segmentor = SimpleNamespace(
            extract_feat_ema=lambda image: None,
            decode_head_ema=SimpleNamespace(forward_get_logits=lambda *args: logits),
            train_cfg=None,
            unsup_temperature=1.0,
            unsup_soft=False,
            with_auxiliary_head_ema=False,
            unsup_confidence=threshold,
        )
        teacher = reference.segmentor.extract_teacher_info_ema(segmentor, None, None)
        vectors.put(f'pseudo.mask_{tag}', teacher['conf_mask'])
        if tag == '95':
            vectors.put('pseudo.argmax', teacher['hard_seg_label'])
    distance = (logits.softmax(1).amax(1) - 0.2).abs()
    assert distance.min() < 1e-12, 'a tie of five classes has the threshold as its confidence'


class UnsupervisedLosses:
    """Losses and gradients of the released loss on pseudo-labels.

    Args:
        reference: The released code.
        student: Logits of the student (N, C, H, W).
        teacher: Logits of the teacher (N, C, H, W).
        label: Pseudo-labels (N, H, W); 255 is ignored.
        mode: Mode of the negative class ranking.
    """

    def __init__(
        self, reference: Reference, student: Tensor, teacher: Tensor, label: Tensor, mode: str = 'unsup_only'
    ):
        student = student.clone().requires_grad_(True)
        segmentor = SimpleNamespace(
            unsup_soft=False,
            decode_head=SimpleNamespace(forward_get_logits=lambda *args: student),
            train_cfg=None,
            unsup_confidence=0.95,
            momentum_head_exp=0,
            momentum_exp=0,
            negative_class_ranking=True,
            negative_class_ranking_mode=mode,
            num_classes=student.shape[1],
        )
        losses = reference.segmentor.compute_pseudo_loss(
            segmentor,
            dict(backbone_feature=None, img_metas=None, img=student),
            dict(hard_seg_label=label, conf_mask=(label != 255) * 1, seg_logits=teacher),
        )
        self.cross_entropy, self.ranking = losses['loss_seg_unsup'], losses['loss_ncr_unsup']
        self.mask_ratio = losses['mask_ratio']
        self.cross_entropy_grad, self.ranking_grad = (
            torch.autograd.grad(loss, student, retain_graph=True)[0]
            for loss in (self.cross_entropy, self.ranking)
        )


def draw_cases(draws: Draws) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Draw logits of student and teacher and a label for each case."""
    n, classes, height, width = 2, 5, 6, 7
    student = draws.grid(n, classes, height, width, scale=2)
    teacher = draws.grid(n, classes, height, width, scale=2)
    label = draws.integers(classes, n, height, width)
    label[draws.chance(0.4, n, height, width)] = 255
    conf, top = teacher.softmax(1).max(1)
    own = top.clone()
    own[conf < 0.6] = 255
    two = torch.where(label == 255, 255, label % 2)
    many = draws.grid(1, 21, 4, 4, scale=2), draws.grid(1, 21, 4, 4, scale=2)
    many_label = draws.integers(22, 1, 4, 4)
    many_label[many_label == 21] = 255
    return dict(
        main=(student, teacher, label),
        own_argmax=(student, teacher, own),
        no_pixel=(student, teacher, torch.full_like(label, 255)),
        one_class=(student, teacher, torch.full_like(label, 2)),
        equal=(student, student, label),
        saturated=(student * 32, teacher * 32, label),
        teacher_flat=(student, torch.zeros_like(teacher), label),
        two_classes=(student[:, :2], teacher[:, :2], two),
        voc=(*many, many_label),
    )


def record_unsupervised_losses(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record negative class ranking and cross-entropy on pseudo-labels."""
    cases = draw_cases(draws)
    for tag, (student, teacher, label) in cases.items():
        losses = UnsupervisedLosses(reference, student, teacher, label)
        if tag in ('main', 'voc'):
            vectors.put_all(f'ncr.{tag}', student=student, teacher=teacher)
        vectors.put_all(f'ncr.{tag}', label=label, loss=losses.ranking, grad=losses.ranking_grad)
        if tag in ('main', 'no_pixel', 'voc'):
            vectors.put_all(f'unsup_ce.{tag}', loss=losses.cross_entropy, grad=losses.cross_entropy_grad)
        if tag in ('main', 'no_pixel'):
            vectors.put(f'unsup_ce.{tag}.mask_ratio', losses.mask_ratio)
    for mode in MODES:
        losses = UnsupervisedLosses(reference, *cases['main'], mode)
        vectors.put_all(f'ncr.mode.{mode}', loss=losses.ranking, grad=losses.ranking_grad)


def record_supervised_loss(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record the loss of a head: weight, ignored pixels, and logits resized to a larger label."""
    logits = draws.grid(2, 4, 6, 8).requires_grad_(True)
    label = draws.integers(4, 2, 1, 6, 8)
    label[draws.chance(0.3, 2, 1, 6, 8)] = 255
    large = label.repeat_interleave(2, 2).repeat_interleave(2, 3)
    vectors.put_all('sup_ce', logits=logits, label=label, label_x2=large)
    for tag, weight in (('decode', 1.0), ('aux', 0.4)):
        loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=weight)
        head = reference.build_head(4, align_corners=False, loss_decode=loss_decode)
        loss = head.losses(logits, label)['loss_ce']
        vectors.put_all(
            f'sup_ce.{tag}',
            loss=loss,
            grad=torch.autograd.grad(loss, logits)[0],
            loss_all_ignored=head.losses(logits, torch.full_like(label, 255))['loss_ce'],
            loss_x2=head.losses(logits, large)['loss_ce'],
        )


class ToyNetwork(nn.Module):
    """Parameters, buffers of batch norms and counters."""

    def __init__(self, draws: Draws):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.bn, self.norm = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
        buffers = [buffer for buffer in self.buffers() if buffer.dtype.is_floating_point]
        for tensor in [*self.parameters(), *buffers]:
            tensor.data.copy_(draws.grid(*tensor.shape))
        for norm, bounds in ((self.bn, (0, 50)), (self.norm, (50, 99))):
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.fill_(draws.random.randint(*bounds))


def record_moving_average(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record three updates of the teacher; the release misses the statistics of some norms."""
    student, teacher = ToyNetwork(draws), ToyNetwork(draws)
    for name, net in (('student', student), ('teacher', teacher)):
        for key, value in net.state_dict().items():
            vectors.put(f'ema.{name}.{key}', value)
    for _ in range(3):
        with torch.no_grad():
            reference.segmentor.update_ema_variables(None, student, teacher, 0.999, False)
    for key, value in teacher.state_dict().items():
        prefix = 'as_released.' if key.startswith('norm.running') else ''
        vectors.put(f'{prefix}ema.after3.{key}', value)
