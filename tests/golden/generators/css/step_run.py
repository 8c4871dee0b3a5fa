"""One training step of CSS: the loop body of a released script, executed on recorded network outputs.

Executed: ``mix_label.py``, ``cross_label.py`` and ``ori_pseudo.py`` with the networks' wrappers of
``generalframeworks/networks/ddp_model.py`` and the losses of ``generalframeworks/loss/loss.py``.
"""

import argparse
import ast
import contextlib
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from common import patched
from torch import Tensor, nn

from .reference import Reference
from .step_inputs import (
    BATCH,
    CLASSES,
    CROP,
    DIM,
    MAP,
    Outputs,
    RecordedNetwork,
    Step,
    blank_images,
)
from .tracing import ContrastTrace, local_values, scripted_rand

SCRIPTS = {
    'mix': ('mix_label.py', 'Model_mix'),
    'cross': ('cross_label.py', 'Model_cross'),
    'baseline': ('ori_pseudo.py', 'Model_ori_pseudo'),
}
QUERIES, NEGATIVES = 8, 12
WEAK_THRESHOLD, UN_THRESHOLD, OHEM_MIN_KEPT = 0.7, 0.97, 440


class Idle:
    """Stand-in for the optimizer and the learning rate's schedule."""

    def zero_grad(self) -> None:
        pass

    def step(self) -> None:
        pass


class WrappedModel:
    """The model as the scripts see it, wrapped for distributed training; the teacher's update does nothing.

    Args:
        model: The released model.
    """

    module = SimpleNamespace(ema_update=lambda: None)

    def __init__(self, model: Any):
        self.model = model

    def __call__(self, *args: Any) -> Any:
        return self.model(*args)


def compile_loop(script: Path) -> CodeType:
    """Compile the body of the loop in the function ``train`` of a released script."""
    tree = ast.parse(script.read_text())
    train = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == 'train')
    loop = next(node for node in train.body if isinstance(node, ast.For))
    return compile(ast.fix_missing_locations(ast.Module(loop.body, [])), str(script), 'exec')


class StepRunner:
    """Runs one step of the released code.

    Args:
        reference: The released modules.
        step: What to run.
        outputs: The recorded outputs of the networks.
        prototypes: Prototypes (C, D), which the step updates in place.
    """

    def __init__(self, reference: Reference, step: Step, outputs: Outputs, prototypes: Tensor):
        self.reference, self.step, self.outputs, self.prototypes = reference, step, outputs, prototypes
        script, model_class = SCRIPTS[step.variant]
        self.script = reference.checkout / script
        self.model_class = getattr(reference.ddp, model_class)
        self.config = dict(
            Dataset=dict(name=step.dataset, crop_size=(CROP, CROP), scale_size=(0.5, 1.5), mix_mode='cutmix'),
            Network=dict(num_class=CLASSES),
            Loss=dict(weak_threshold=WEAK_THRESHOLD),
        )
        self.model = self._build_model()
        self.criterion = self._build_losses()
        self.ramp = reference.ramp_down_class(
            begin_epoch=0,
            max_epoch=200,
            current_epoch=step.epoch,
            max_value=1.0,
            min_value=0,
            ramp_mult=-5.0,
        )

    def _build_model(self) -> Any:
        options = {} if self.step.is_baseline else dict(temp=self.step.tau_s)
        with (
            patched(self.reference.ddp, DeepLabv3Plus_with_rep=lambda *args, **kwargs: RecordedNetwork()),
            contextlib.redirect_stdout(None),
        ):
            model = self.model_class(None, num_classes=CLASSES, output_dim=DIM, config=self.config, **options)
        student = self.outputs.student
        model.model = RecordedNetwork(
            (student['pred_labeled'], student['rep_labeled']),
            (student['pred_unlabeled'], student['rep_unlabeled']),
        )
        return model

    def _build_losses(self) -> dict[str, Any]:
        losses = self.reference.losses
        return dict(
            sup_loss=losses.ProbOhemCrossEntropy2d(ignore_label=-1, thresh=0.7, min_kept=OHEM_MIN_KEPT),
            ce_loss=nn.CrossEntropyLoss(ignore_index=-1),
            unsup_loss=losses.Attention_Threshold_Loss(strong_threshold=UN_THRESHOLD),
            contrast_loss=losses.Contrast_Loss(
                num_queries=QUERIES,
                num_negatives=NEGATIVES,
                temp=0.5,
                strong_threshold=self.step.strong_threshold,
                alpha=0.99,
            ),
        )

    def make_teacher(self) -> RecordedNetwork:
        """Build the teacher; in CSS it also sees the labeled images, and that answer is not used."""
        answer = self.outputs.teacher_pred, self.outputs.teacher_rep
        if self.step.is_baseline:
            return RecordedNetwork(answer)
        blank = torch.zeros(BATCH, CLASSES, MAP, MAP), torch.zeros(BATCH, DIM, MAP, MAP)
        return RecordedNetwork(blank, answer)

    def settle_disputes(self) -> None:
        """Lower the teacher's confidence until no pixel is confident and disputed."""
        name = self.model_class.forward.__qualname__
        for _ in range(30):
            self.model.ema_model = self.make_teacher()
            with (
                local_values(self.model_class.forward) as seen,
                patched(torch, rand=scripted_rand(None)),
                torch.no_grad(),
            ):
                self.model(blank_images(), blank_images(), self.prototypes)
            variables = seen[name][0]
            conflict = (variables['pseudo_labels'] == 255) & (variables['pseudo_logits_cls'] > 0.965)
            near = F.max_pool2d(conflict.float()[:, None], 3, 1, 1)
            cells = F.adaptive_max_pool2d(near, MAP).bool()
            if not cells.any():
                return
            pred = self.outputs.teacher_pred
            self.outputs.teacher_pred = torch.where(cells, torch.round(pred * 1024) / 2048, pred)
        raise RuntimeError(
            f'no teacher without confident disputed pixels for {self.step.name}; use another seed'
        )

    def loop_variables(self) -> dict[str, Any]:
        """Return the names that the loop body of the released scripts uses."""
        step, utils = self.step, self.reference.utils
        return dict(
            torch=torch,
            nn=nn,
            F=F,
            label_onehot=utils.label_onehot,
            label_onehot_2=utils.label_onehot_2,
            config=self.config,
            num_class=CLASSES,
            epoch=step.epoch,
            train_l_image=blank_images(),
            train_l_label=self.outputs.label,
            training_u_iter=iter([(blank_images(), torch.zeros(BATCH, CROP, CROP))]),
            prototypes=self.prototypes,
            model=WrappedModel(self.model),
            criterion=self.criterion,
            optimizer=Idle(),
            scheduler=Idle(),
            sche_d=self.ramp,
            args=argparse.Namespace(weak_threshold=WEAK_THRESHOLD, sche=True, warmup=step.warmup),
        )

    def run(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], ContrastTrace]:
        """Run the step.

        Returns:
            The variables of the loop, of the model's forward and of the unsupervised loss, and the contrast's
            draws.
        """
        if self.step.settles_disputes:
            self.settle_disputes()
        self.model.model.calls = 0
        self.model.ema_model = self.make_teacher()
        variables = self.loop_variables()
        unsup_forward = self.reference.losses.Attention_Threshold_Loss.forward
        trace = ContrastTrace(self.reference.losses, self.criterion['contrast_loss'])
        with (
            local_values(self.model_class.forward, unsup_forward) as seen,
            patched(torch, rand=scripted_rand(None)),
            trace.recording(),
        ):
            exec(compile_loop(self.script), variables)
        forward = seen[self.model_class.forward.__qualname__][0]
        return variables, forward, seen[unsup_forward.__qualname__][0], trace
