"""Make ``unimatch_step.npz``, training steps of UniMatch and FixMatch, from checkouts of both versions.

References: https://github.com/LiheYoung/UniMatch (``--reference``) and
https://github.com/LiheYoung/UniMatch-V2 (``--reference-v2``). Executed: the bodies of the training loops of
``unimatch.py`` and ``fixmatch.py`` of the first and of ``unimatch_v2.py`` and ``fixmatch.py`` of the second.
They are read from the checkouts when this script runs and are executed on recorded logits.
"""

import argparse
import ast
from collections.abc import Iterable
from pathlib import Path
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from common import make_parser, patched, save
from torch import Tensor, nn

BATCH, CLASSES, SIZE = 4, 5, 12
THRESHOLD = 0.5
METERS = ('total_loss', 'total_loss_x', 'total_loss_s', 'total_loss_w_fp', 'total_mask_ratio')
STREAMS = ('labeled', 'weak', 'weak_fp', 'strong_1', 'strong_2')


def compile_loop(script: Path) -> tuple[CodeType, CodeType]:
    """Compile the training loop of a script.

    Returns:
        Code that unpacks the name ``batch`` into the loop's variables, and the loop's body without its
        logging.
    """
    tree = ast.parse(script.read_text())
    loop = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For)
        and isinstance(node.iter, ast.Call)
        and node.iter.args
        and getattr(node.iter.args[0], 'id', '') == 'loader'
    )
    body = [s for s in loop.body if 'logger' not in ast.dump(s) and 'writer' not in ast.dump(s)]
    assert isinstance(loop.target, ast.Tuple)
    unpack = f'{ast.unparse(loop.target.elts[1])} = batch'
    module = ast.fix_missing_locations(ast.Module(body, []))
    return compile(unpack, str(script), 'exec'), compile(module, str(script), 'exec')


class Meter:
    """Stand-in for the running averages of the released scripts."""

    def update(self, value: float) -> None:
        pass


class IdleOptimizer:
    """Stand-in for the optimizer: only the learning rates of its groups are kept."""

    def __init__(self) -> None:
        self.param_groups: list[dict] = [{}, {}]

    def zero_grad(self) -> None:
        pass

    def step(self) -> None:
        pass


class RecordedNetwork:
    """A network that returns recorded logits in the order of its calls and keeps its inputs.

    Args:
        answers: What the calls return.
        parameter: Value of its only parameter.
        buffer: Value of its only buffer.
    """

    def __init__(self, answers: list, parameter: float = 0.0, buffer: float = 0.0):
        self.answers = answers
        self.inputs: list[Tensor] = []
        self.parameter, self.buffer = torch.tensor(parameter), torch.tensor(buffer)

    def __call__(self, x: Tensor, *args: object, **options: object) -> Any:
        self.inputs.append(x.detach().clone())
        return self.answers[len(self.inputs) - 1]

    def train(self) -> None:
        pass

    def eval(self) -> None:
        pass

    def parameters(self) -> list[Tensor]:
        return [self.parameter]

    def buffers(self) -> list[Tensor]:
        return [self.buffer]


class Inputs:
    """Images, labels, CutMix boxes and recorded logits that all four methods share."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.labeled = self.normal(BATCH, 3, SIZE, SIZE), self.draw_mask()
        self.weak = self.draw_views()
        ignore = torch.zeros(BATCH, SIZE, SIZE, dtype=torch.long)
        ignore[0, :4] = ignore[1, :, 9:] = ignore[3, 6:8, 2:9] = 255
        self.mix = self.draw_views()
        mix_ignore = torch.zeros(BATCH, SIZE, SIZE, dtype=torch.long)
        mix_ignore[0, 7:] = mix_ignore[1, :, :2] = mix_ignore[2, 3:5] = 255
        self.ignore, self.mix_ignore = ignore, mix_ignore
        self.boxes = make_boxes(), make_boxes().flip(2)
        self.logits = {name: self.draw_logits().requires_grad_(True) for name in STREAMS}
        self.mix_logits, self.teacher_logits = self.draw_logits(), self.draw_logits()
        with torch.no_grad():
            for logits in (self.logits['weak'], self.mix_logits, self.teacher_logits):
                put_confidence_on_threshold(logits)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def draw_mask(self) -> Tensor:
        """Draw a label (N, H, W) whose first rows are ignored."""
        mask = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), generator=self.generator)
        mask[:, :2] = 255
        return mask

    def draw_views(self) -> list[Tensor]:
        """Draw the weak and the two strong views of a batch."""
        return [self.normal(BATCH, 3, SIZE, SIZE) for _ in range(3)]

    def draw_logits(self) -> Tensor:
        """Draw logits (N, K, H, W) so large that many pixels pass the threshold."""
        return self.normal(BATCH, CLASSES, SIZE, SIZE) * 3.0

    def batch(self, with_mix: bool) -> tuple:
        """Return a copy of the loader's batch; V1 takes the images to mix from a third loader."""
        batch = [self.labeled, (*self.weak, self.ignore, *self.boxes)]
        if with_mix:
            batch.append((*self.mix, self.mix_ignore, *self.boxes))
        return tuple(tuple(tensor.clone() for tensor in part) for part in batch)

    def vectors(self) -> dict:
        """Return the inputs under the names of the vectors."""
        views = ('weak', 'strong_1', 'strong_2')
        vectors: dict = dict(labeled=self.labeled[0], mask=self.labeled[1], ignore=self.ignore)
        vectors.update(zip(views, self.weak, strict=True))
        vectors.update({f'mix_{name}': view for name, view in zip(views, self.mix, strict=True)})
        vectors.update(mix_ignore=self.mix_ignore, box_1=self.boxes[0], box_2=self.boxes[1])
        vectors['conf_thresh'] = torch.tensor(THRESHOLD)
        vectors.update({f'logits.{name}': logits for name, logits in self.logits.items()})
        vectors['logits.mix_weak'], vectors['logits.teacher_weak'] = self.mix_logits, self.teacher_logits
        return vectors


def make_boxes() -> Tensor:
    """Return CutMix boxes (N, H, W); the last image has none."""
    boxes = torch.zeros(BATCH, SIZE, SIZE)
    boxes[0, 2:9, 3:7] = boxes[1, 5:12, 0:6] = boxes[2, 0:8, 4:11] = 1
    return boxes


def put_confidence_on_threshold(logits: Tensor) -> None:
    """Give two pixels two equal classes and no chance to the others, so that their confidence is 0.5."""
    logits[:, :, 10, 11] = torch.tensor([-1e4, 0.0, -1e4, 0.0, -1e4])
    logits[:, :, 5, 5] = torch.tensor([0.0, -1e4, -1e4, -1e4, 0.0])


def run_step(
    script: Path, batch: tuple, answers: list, teacher: RecordedNetwork | None = None
) -> tuple[RecordedNetwork, dict]:
    """Execute the loop body of a released script once; return the network and the loop's variables."""
    unpack, body = compile_loop(script)
    student = RecordedNetwork(answers, parameter=3.0, buffer=5.0)
    variables: dict[str, Any] = dict(
        torch=torch,
        nn=nn,
        F=F,
        cfg=dict(conf_thresh=THRESHOLD, lr=1e-3, lr_multi=10.0),
        epoch=1,
        i=2,
        rank=1,
        total_iters=100,
        trainloader_u=range(10),
        trainloader_l=range(10),
        optimizer=IdleOptimizer(),
        model=student,
        criterion_l=nn.CrossEntropyLoss(ignore_index=255),
        criterion_u=nn.CrossEntropyLoss(reduction='none'),
        batch=batch,
        **{name: Meter() for name in METERS},
    )
    if teacher is not None:
        variables['model_ema'] = teacher
    exec(unpack, variables)
    exec(body, variables)
    return student, variables


def collect(inputs: Inputs, variables: dict, streams: Iterable[str]) -> dict:
    """Return the losses, the mask ratio and the gradients of a step, and reset the gradients."""
    vectors = {
        key: value for key, value in variables.items() if key.startswith('loss') and torch.is_tensor(value)
    }
    vectors['mask_ratio'] = variables['mask_ratio']
    for name in streams:
        grad = inputs.logits[name].grad
        vectors[f'grad.{name}'] = torch.zeros_like(inputs.logits[name]) if grad is None else grad.clone()
    for logits in inputs.logits.values():
        logits.grad = None
    return vectors


def record_unimatch(checkout: Path, inputs: Inputs) -> dict:
    """Record a step of UniMatch."""
    logits = inputs.logits
    unused = inputs.draw_logits()  # perturbed logits of the labeled images, which the loss does not use
    answers = [
        inputs.mix_logits,
        (torch.cat((logits['labeled'], logits['weak'])), torch.cat((unused, logits['weak_fp']))),
        torch.cat((logits['strong_1'], logits['strong_2'])),
    ]
    student, variables = run_step(checkout / 'unimatch.py', inputs.batch(with_mix=True), answers)
    vectors = collect(inputs, variables, STREAMS)
    vectors['mixed_strong_1'], vectors['mixed_strong_2'] = student.inputs[2].chunk(2)
    vectors['lr_after_iter_12_of_100'] = torch.tensor(variables['optimizer'].param_groups[0]['lr'])
    return vectors


def record_fixmatch(checkout: Path, inputs: Inputs) -> dict:
    """Record a step of FixMatch in UniMatch's repository."""
    logits = inputs.logits
    answers = [inputs.mix_logits, torch.cat((logits['labeled'], logits['weak'])), logits['strong_1']]
    student, variables = run_step(checkout / 'fixmatch.py', inputs.batch(with_mix=True), answers)
    vectors = collect(inputs, variables, ('labeled', 'weak', 'strong_1'))
    return vectors | dict(mixed_strong_1=student.inputs[2])


def record_unimatch_v2(checkout: Path, inputs: Inputs) -> dict:
    """Record a step of UniMatch V2; its dropout is inside the network, so the loss sees plain logits."""
    logits = inputs.logits
    teacher = RecordedNetwork([inputs.teacher_logits], parameter=1.0, buffer=-1.0)
    answers = [logits['labeled'], torch.cat((logits['strong_1'], logits['strong_2']))]
    script = checkout / 'unimatch_v2.py'
    student, variables = run_step(script, inputs.batch(with_mix=False), answers, teacher)
    vectors = collect(inputs, variables, ('labeled', 'strong_1', 'strong_2'))
    vectors['mixed_strong_1'], vectors['mixed_strong_2'] = student.inputs[1].chunk(2)
    vectors['ema_from_1_to_3_at_iter_12'] = teacher.parameter
    vectors['ema_buffer_from_-1_to_5_at_iter_12'] = teacher.buffer
    return vectors


def record_fixmatch_v2(checkout: Path, inputs: Inputs) -> dict:
    """Record a step of FixMatch in UniMatch V2's repository."""
    logits = inputs.logits
    teacher = RecordedNetwork([inputs.teacher_logits], parameter=1.0, buffer=-1.0)
    answers = [torch.cat((logits['labeled'], logits['strong_1']))]
    script = checkout / 'fixmatch.py'
    student, variables = run_step(script, inputs.batch(with_mix=False), answers, teacher)
    vectors = collect(inputs, variables, ('labeled', 'strong_1'))
    return vectors | dict(mixed_strong_1=student.inputs[0][BATCH:])


def record_steps(args: argparse.Namespace) -> dict:
    """Record one step of each method on the same inputs."""
    inputs = Inputs(args.seed)
    vectors = inputs.vectors()
    methods = dict(
        unimatch=record_unimatch(args.reference, inputs),
        fixmatch=record_fixmatch(args.reference, inputs),
        unimatch_v2=record_unimatch_v2(args.reference_v2, inputs),
        fixmatch_v2=record_fixmatch_v2(args.reference_v2, inputs),
    )
    for method, entries in methods.items():
        vectors.update({f'{method}.{key}': value for key, value in entries.items()})
    return vectors


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('--reference-v2', type=Path, required=True, metavar='CHECKOUT', help='UniMatch V2')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with (
        patched(torch.Tensor, cuda=lambda tensor, *args, **options: tensor),
        patched(torch.distributed, barrier=lambda *args, **options: None),
    ):
        vectors = record_steps(args)
    save(args.out / 'unimatch_step.npz', vectors)


if __name__ == '__main__':
    main()
