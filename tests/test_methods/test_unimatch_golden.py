"""One step of UniMatch, FixMatch and their V2 against vectors of the released loops, on recorded logits."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import nn

from allspark_mmseg.registry import PARAM_SCHEDULERS
from allspark_mmseg.teacher import Teacher

from ..helpers.golden import assert_close_to_largest
from ..helpers.tiny_models import build_model, losses_in

METHODS = {
    'unimatch': ('UniMatch', dict(mix_source='same_image')),
    'fixmatch': ('FixMatch', dict(mix_source='same_image')),
    'unimatch_v2': ('UniMatchV2', dict(mix_source='batch', no_dropout_ratio=1.0)),
    'fixmatch_v2': ('FixMatch', dict(mix_source='batch', teacher=dict())),
}


@MMSEG_MODELS.register_module()
class ImagesAsFeatures(nn.Module):
    def forward(self, images):
        return [images]


@MMSEG_MODELS.register_module()
class RecordedHead(BaseDecodeHead):
    """Answers each image with the logits recorded for it, and perturbed ones with those for perturbation."""

    def __init__(self, num_classes: int):
        super().__init__(
            in_channels=3,
            channels=3,
            num_classes=num_classes,
            align_corners=True,
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        )
        self.answers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.perturbed: torch.Tensor | tuple = ()

    def forward(self, features):
        given = features[0]
        found = [self.recorded(image) for image in given]
        missing = [i for i, logits in enumerate(found) if logits is None]
        # perturbed images: first the labeled ones, whose logits are of no use
        unused = len(missing) - len(self.perturbed)
        for place, i in enumerate(missing):
            found[i] = self.perturbed[max(place - unused, 0)] * (place >= unused)
        return torch.stack(found)

    def recorded(self, image):
        for images, logits in self.answers:
            for one, answer in zip(images, logits, strict=True):
                if torch.equal(one, image):
                    return answer
        return None


def sample(data: torch.Tensor) -> SegDataSample:
    return SegDataSample(gt_sem_seg=PixelData(data=data[None]))


def build_recorded(name: str, vectors: dict, logits: dict):
    """The method on a head that answers with the recorded logits, and with the recorded boxes."""
    method, arguments = METHODS[name]
    model = build_model(
        dict(
            type=f'allspark_mmseg.{method}',
            segmentor=dict(
                type='EncoderDecoder',
                backbone=dict(type='ImagesAsFeatures'),
                decode_head=dict(type='RecordedHead', num_classes=logits['labeled'].shape[1]),
                test_cfg=dict(mode='whole'),
            ),
            threshold=float(vectors['conf_thresh']),
            **arguments,
        )
    ).train()
    boxes = iter((vectors['box_1'].bool(), vectors['box_2'].bool()))
    model.cutmix.draw = lambda *_: next(boxes)
    head = model.decode_head
    head.perturbed = logits['weak_fp']
    mixed = [vectors.get(f'{name}.mixed_strong_{k}') for k in (1, 2)]
    head.answers = [(vectors['labeled'], logits['labeled']), (vectors['weak'], logits['weak'])]
    head.answers += [(vectors['mix_weak'], logits['mix_weak'])]
    head.answers += [(mixed[k], logits[f'strong_{k + 1}']) for k in (0, 1) if mixed[k] is not None]
    if model.teacher is not None:
        model.teacher.module.decode_head.answers = [(vectors['weak'], logits['teacher_weak'])]
    return model


def recorded_losses(method: str, model, losses: dict) -> dict[str, torch.Tensor]:
    """Our losses under the names of the release, without their weights."""
    recorded = {
        'loss': losses_in(losses),
        'loss_x': losses['sup.decode.loss_ce'] / model.labeled_weight,
        'mask_ratio': losses['pseudo.confident'],
        'loss_u_s1': losses['unsup.loss_strong_1'] / model.strong_weight,
    }
    if method == 'FixMatch':
        recorded['loss_u_s'] = recorded.pop('loss_u_s1')
    else:
        recorded['loss_u_s2'] = losses['unsup.loss_strong_2'] / model.strong_weight
    if method == 'UniMatch':
        recorded['loss_u_w_fp'] = losses['unsup.loss_perturbed'] / model.perturbed_weight
    return recorded


@pytest.mark.parametrize('name', METHODS)
def test_a_step_is_that_of_the_released_loop(golden, name):
    vectors = golden('unimatch_step')
    logits = {
        key.removeprefix('logits.'): value.clone().requires_grad_()
        for key, value in vectors.items()
        if key.startswith('logits.')
    }
    model = build_recorded(name, vectors, logits)
    views = ('labeled', 'weak', 'strong_1', 'strong_2', 'mix_weak', 'mix_strong_1', 'mix_strong_2')
    samples = {
        'labeled': [sample(mask) for mask in vectors['mask']],
        'weak': [sample(mask) for mask in vectors['ignore']],
        'mix_weak': [sample(mask) for mask in vectors['mix_ignore']],
    }
    losses = model.loss({view: vectors[view] for view in views}, samples)
    losses_in(losses).backward()

    for key, value in recorded_losses(METHODS[name][0], model, losses).items():
        torch.testing.assert_close(value.detach(), vectors[f'{name}.{key}'], rtol=1e-6, atol=0)
    compared = 0
    for key, value in vectors.items():
        if key.startswith(f'{name}.grad.'):
            grad = logits[key.removeprefix(f'{name}.grad.')].grad
            assert_close_to_largest(torch.zeros_like(value) if grad is None else grad, value, 1e-6)
            compared += 1
    assert compared >= 2
    assert logits['mix_weak'].grad is None and logits['teacher_weak'].grad is None


def test_the_teacher_follows_as_released(golden):
    vectors = golden('unimatch_step')
    student = nn.BatchNorm2d(1)
    teacher = Teacher(student)
    for part, start, toward, name in (
        ('weight', 1, 3, 'ema_from_1_to_3_at_iter_12'),
        ('running_mean', -1, 5, 'ema_buffer_from_-1_to_5_at_iter_12'),
    ):
        teacher.steps.fill_(12)
        with torch.no_grad():
            getattr(teacher.module, part).fill_(start)
            getattr(student, part).fill_(toward)
            teacher.update_parameters(student)
        found = getattr(teacher.module, part).squeeze().detach()
        torch.testing.assert_close(found, vectors[f'unimatch_v2.{name}'], rtol=1e-6, atol=0)


def test_the_learning_rate_is_the_released_one(golden):
    expected = golden('unimatch_step')['unimatch.lr_after_iter_12_of_100']
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = PARAM_SCHEDULERS.build(
        dict(
            type='allspark_mmseg.PostStepPolyLR',
            optimizer=optimizer,
            power=0.9,
            eta_min=0.0,
            begin=0,
            end=100,
            by_epoch=False,
        )
    )
    for _ in range(13):  # the rate set after step 12, for step 13
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(torch.tensor(optimizer.param_groups[0]['lr']), expected, rtol=1e-6, atol=0)
