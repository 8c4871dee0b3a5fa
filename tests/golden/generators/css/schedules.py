"""Vectors of CSS's schedules (``generalframeworks/scheduler/``) and teacher (``networks/ddp_model.py``)."""

import contextlib
from typing import Any

import numpy as np
import torch
from common import patched
from torch import Tensor, nn

from .record import Draws, Vectors
from .reference import Reference
from .tracing import scripted_rand

EPOCHS = [0, 1, 7, 10, 25, 50, 60, 100, 150, 199, 200, 201, 5000]
ITERATIONS = [0, 1, 2, 100, 20000, 40000, 79000, 79212, 79213, 79999, 80000]
RAMPS: dict[str, dict[str, Any]] = {
    'ramp': dict(begin_epoch=0, max_epoch=200, max_value=1.0, min_value=0, ramp_mult=-5.0),
    'ramp_b': dict(begin_epoch=10, max_epoch=60, max_value=2.0, min_value=0.5, ramp_mult=-3.0),
}
TEACHER_STEPS, LONG_STEPS = 3, 103


def record_ramps(reference: Reference, vectors: Vectors) -> None:
    """Record the weight of the contrastive loss by epoch; no released script uses the ramp-up."""
    for name, options in RAMPS.items():
        values = [float(reference.ramp_down_class(current_epoch=epoch, **options).value) for epoch in EPOCHS]
        vectors.put_all(name, epochs=EPOCHS, values=values, **options)
    options = dict(begin_epoch=10, max_epoch=60, max_value=2.0, ramp_mult=-5.0)
    ramp_up, values = reference.ramp_up_class(**options), []
    for epoch in EPOCHS:
        ramp_up.epoch = epoch
        values.append(float(ramp_up.value))
    vectors.put_all('ramp_up_unused', epochs=EPOCHS, values=values, **options)


def make_optimizer(lr: float) -> torch.optim.Optimizer:
    """Build an optimizer of one parameter."""
    return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=lr)


def record_poly(reference: Reference, vectors: Vectors) -> None:
    """Record the learning rate in float64: at some iterations, and as it is used in ten steps."""
    poly, rates = reference.poly_class(make_optimizer(6.4e-3), 80000, min_lr=1e-4), []
    for iteration in ITERATIONS:
        poly.last_epoch = iteration
        rates.append(poly.get_lr()[0])
    vectors.put_exact('poly.iterations', ITERATIONS)
    vectors.put_exact('poly.lr', np.array(rates, np.float64))

    optimizer = make_optimizer(0.5)
    poly, rates = reference.poly_class(optimizer, 10, min_lr=0.1), []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        poly.step()
    vectors.put_exact('poly.lr_used_in_10_steps_from_0.5_floor_0.1', np.array(rates, np.float64))


class TinyNetwork(nn.Module):
    """A batch norm with two convolutions on its output."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.cls, self.rep = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> logits (N, 4, H, W) and representations (N, 6, H, W)."""
        x = self.bn(x)
        return self.cls(x), self.rep(x)


def flat_parameters(net: nn.Module) -> Tensor:
    """Return all parameters (46,): bn.weight, bn.bias, cls.weight, cls.bias, rep.weight, rep.bias."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])


def build_model(reference: Reference, class_name: str) -> Any:
    """Build a released model around the tiny network, in training mode."""
    config = dict(Dataset=dict(crop_size=(4, 4), scale_size=(1.0, 1.0), mix_mode='cutmix'))
    with (
        patched(reference.ddp, DeepLabv3Plus_with_rep=lambda *args, **kwargs: TinyNetwork()),
        contextlib.redirect_stdout(None),
    ):
        model = getattr(reference.ddp, class_name)(None, num_classes=4, output_dim=6, config=config)
    model.train()
    return model


def teacher_step(model: Any, draws: Draws, with_prototypes: bool) -> dict[str, Tensor]:
    """Run a forward pass, move the student at random, and update the teacher."""
    labeled, unlabeled = draws.grid(2, 3, 4, 4) + 1.0, draws.grid(2, 3, 4, 4, scale=2.0)
    inputs = [labeled, unlabeled]
    if with_prototypes:
        inputs.append(draws.grid(4, 6))
    with torch.no_grad(), patched(torch, rand=scripted_rand(None)):
        model(*inputs)
    for parameter in model.model.parameters():
        parameter.data += draws.grid(*parameter.shape, scale=0.5)
    model.ema_update()
    bn = model.ema_model.bn
    return dict(
        images_labeled=labeled,
        images_unlabeled=unlabeled,
        student=flat_parameters(model.model),
        teacher=flat_parameters(model.ema_model),
        teacher_bn_mean_var=torch.stack([bn.running_mean, bn.running_var]).clone(),
    )


def record_teacher(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record three updates of the teacher in two variants, and many updates of one parameter."""
    for name, class_name in (('mix', 'Model_mix'), ('baseline', 'Model_ori_pseudo')):
        model = build_model(reference, class_name)
        start = flat_parameters(model.ema_model)
        steps = [teacher_step(model, draws, name == 'mix') for _ in range(TEACHER_STEPS)]
        stacks = {key: [step[key] for step in steps] for key in steps[0]}
        stacks['teacher'].insert(0, start)
        vectors.put_all(f'ema.{name}', **{key: torch.stack(values) for key, values in stacks.items()})

    student, teacher, model.step = draws.grid(LONG_STEPS, scale=4.0), [], 0
    for value in student:
        model.model.bn.bias.data[0] = value
        model.ema_update()
        teacher.append(float(model.ema_model.bn.bias[0]))
    vectors.put_all('ema.long', student=student, teacher=teacher)
