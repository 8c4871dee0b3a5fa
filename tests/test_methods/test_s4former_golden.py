"""Training steps of S4Former against vectors of its release."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from allspark_mmseg.methods.s4former.patch_attention import unconfident_share
from allspark_mmseg.methods.s4former.patch_shuffle import shuffle

from ..helpers.golden import assert_close_to_largest, strip_prefix
from ..helpers.s4former_golden import MMSEG, doubled, network


def boxes_of(corners: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    boxes = torch.zeros(len(corners), *size, dtype=torch.bool)
    for box, (left, top, right, bottom) in zip(boxes, corners.tolist(), strict=True):
        box[top:bottom, left:right] = True
    return boxes


def masks(labels: torch.Tensor) -> list[SegDataSample]:
    return [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=label.shape[1:]))
        for label in labels.long()
    ]


LOSSES = {
    'decode.loss_ce': 'sup.decode.loss_ce',
    **{f'aux_{i}.loss_ce': f'sup.aux_{i}.loss_ce' for i in range(4)},
    'loss_seg_unsup_attn_mask': 'unsup.loss_attention',
    'loss_seg_unsup': 'unsup.loss_perturbed',
    'loss_ncr_unsup': 'unsup.loss_ranking',
}


def trained(vectors: dict, **arguments) -> torch.nn.Module:
    """The recorded network with the settings of the recorded steps."""
    patch = vectors['train.student_image'].shape[2] // vectors['train.0.unconfident'].shape[1]
    model = network(
        vectors,
        threshold=float(vectors['train.tau']),
        teacher=dict(momentum=1 - float(vectors['train.ema']), warm_up=False, buffers={'tracked': 'leave'}),
        shuffle=dict(block_size=patch * int(vectors['train.block_tokens'])),
        ignore_padding=False,
        **arguments,
    )
    # the pseudo-labels of each step, after the comparison with the threshold
    model.pseudo = []
    log_statistics = model.log_statistics
    model.log_statistics = lambda pseudo: model.pseudo.append(pseudo) or log_statistics(pseudo)
    return model


def step(model: torch.nn.Module, vectors: dict, prefix: str, boxes: torch.Tensor | None) -> dict:
    """One recorded step: teacher first, then the losses, compared; returns them with gradients made."""
    model.teacher.update_parameters(model.student)
    permutation = vectors[f'{prefix}.perm'].long()
    model.shuffle.draw = lambda *_: permutation
    size = tuple(vectors['train.student_image'].shape[2:])
    none = torch.zeros(len(permutation), *size, dtype=torch.bool)
    model.cutmix.draw = lambda *_: none if boxes is None else boxes
    losses = model.loss(
        dict(
            labeled=vectors['train.sup_image'],
            weak=vectors['train.teacher_image'],
            strong_1=vectors['train.student_image'],
        ),
        dict(labeled=masks(vectors['train.sup_label'])),
    )
    pseudo = model.pseudo[-1]
    assert torch.equal(pseudo.valid, vectors[f'{prefix}.mask'].bool())
    assert torch.equal(pseudo.target, vectors[f'{prefix}.label'].long())
    patch = model.student.backbone.patch_size
    unconfident = unconfident_share(pseudo.valid, patch).double()
    torch.testing.assert_close(unconfident, vectors[f'{prefix}.unconfident'], rtol=1e-12, atol=0)
    model.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return losses


def compare_losses(losses: dict, vectors: dict, expected: torch.Tensor) -> None:
    for name, value in zip(vectors['train.loss_names'].tolist(), expected, strict=True):
        found = losses[LOSSES[name]].detach()
        torch.testing.assert_close(
            found, value, rtol=MMSEG, atol=0, msg=lambda text, name=name: f'{name}: {text}'
        )


def compare_gradients(model: torch.nn.Module, vectors: dict, prefix: str) -> None:
    parameters = dict(model.student.named_parameters())
    names = vectors['train.params'].tolist()
    assert names and set(names) == set(parameters)
    largest = vectors[f'{prefix}.grad_norm'].max()
    for name, norm, dot in zip(
        names, vectors[f'{prefix}.grad_norm'], vectors[f'{prefix}.grad_dot'], strict=True
    ):
        grad = parameters[name].grad.flatten()
        for found, value in ((grad.norm(), norm), (weighted_sum(grad), dot)):
            assert abs(found - value) <= MMSEG * largest, f'{name}: {found} instead of {value}'


def weighted_sum(values: torch.Tensor) -> torch.Tensor:
    values = values.detach().flatten().double()
    return (values * torch.arange(len(values), dtype=torch.float64).cos()).sum()


def test_three_training_steps_match_the_release(golden):
    vectors = doubled(golden('s4former'))
    model = trained(vectors)
    lr, head_lr = float(vectors['train.lr']), float(vectors['train.head_lr'])
    groups = {True: [], False: []}
    for name, parameter in model.student.named_parameters():
        groups['head' in name].append(parameter)
    optimizer = torch.optim.SGD(
        [dict(params=groups[False], lr=lr), dict(params=groups[True], lr=head_lr)],
        momentum=float(vectors['train.momentum']),
    )
    for t in range(3):
        losses = step(model, vectors, f'train.{t}', None)
        compare_losses(losses, vectors, vectors[f'train.{t}.losses'])
        compare_gradients(model, vectors, f'train.{t}')
        if t == 0:
            parameters = dict(model.student.named_parameters())
            for key, value in strip_prefix(vectors, 'train.0.grad.').items():
                assert_close_to_largest(parameters[key].grad, value, MMSEG, key)
            grid = model.shuffle.grid(vectors['train.student_image'].shape[2:])
            image = shuffle(vectors['train.student_image'], vectors['train.0.perm'].long(), grid)
            assert torch.equal(image, vectors['train.0.image_perturbed'])
            teacher = model.pseudo[0].logits[..., 5::16, 9::16]
            assert_close_to_largest(teacher, vectors['train.0.logits_teacher_every_16th'], MMSEG)
        optimizer.step()

    final = model.student.state_dict()
    for name, value in model.teacher.module.state_dict().items():
        part, _, rest = name.partition('.')
        final[f'{part}_ema.{rest}'] = value
    names = vectors['train.states'].tolist()
    for name, norm, dot in zip(names, vectors['train.final_norm'], vectors['train.final_dot'], strict=True):
        value = final[name].double().flatten()
        for found, recorded in ((value.norm(), norm), (weighted_sum(value), dot)):
            assert abs(found - recorded) <= MMSEG * max(float(norm), 1.0), name


@pytest.mark.parametrize('released', [False, True])
def test_a_step_with_cutmix_matches_the_release(golden, released):
    vectors = doubled(golden('s4former'))
    prefix = 'as_released.train_cutmix'
    model = trained(
        vectors,
        mix_teacher_logits=not released,
        unlabeled_weight=float(vectors[f'{prefix}.beta']),
    )
    size = tuple(vectors['train.student_image'].shape[2:])
    boxes = boxes_of(vectors[f'{prefix}.boxes'], size)
    losses = step(model, vectors, prefix, boxes)
    expected = prefix if released else 'teacher_mixed.train_cutmix'
    compare_losses(losses, vectors, vectors[f'{expected}.losses'])
    total = sum(value for name, value in losses.items() if 'loss' in name).detach()
    torch.testing.assert_close(total, vectors[f'{expected}.total'], rtol=MMSEG, atol=0)
    if released:
        compare_gradients(model, vectors, prefix)


def test_the_supervised_losses_match_the_released_mean_teacher(golden):
    """Its release builds no unsupervised loss; ours does, and shares the supervised part."""
    vectors = doubled(golden('s4former'))
    model = trained(vectors)
    names = vectors['as_released.mean_teacher.loss_names'].tolist()
    assert set(names) == {name for name in LOSSES if 'unsup' not in name}
    losses = step(model, vectors, 'train.0', None)
    expected = dict(zip(names, vectors['as_released.mean_teacher.losses'], strict=True))
    for name, value in expected.items():
        torch.testing.assert_close(losses[LOSSES[name]].detach(), value, rtol=MMSEG, atol=0)
