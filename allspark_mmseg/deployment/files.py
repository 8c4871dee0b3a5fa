"""ONNX and TorchScript files of a segmentor."""

import copy
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from .segmentor import DeployedSegmentor
from .tracing import traceable

OPSET = 17  # the first with LayerNormalization
INPUT, OUTPUTS = 'image', ('logits', 'labels')
TOLERANCE = {'fp32': 1e-4, 'fp16': 2e-2}  # see ``largest_difference``
INSTALL = "pip install 'allspark-mmseg[export]'"
_AXES = {'image': (0, 2, 3), 'logits': (0, 2, 3), 'labels': (0, 1, 2)}
_NAMES = ('batch', 'height', 'width')

Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path (Path): The file.
        size (tuple[int, int]): (height, width) in pixels for which a file with a fixed size was made.
        free (tuple[str, ...]): What the caller chooses: ``batch``, ``height`` and ``width``; ``batch``; or
            nothing, and the batch is 1.
        reason (str): Why the others are fixed.
    """

    path: Path
    size: tuple[int, int]
    free: tuple[str, ...]
    reason: str = ''

    @property
    def dynamic(self) -> bool:
        """Whether height and width are free."""
        return 'height' in self.free

    def describe(self) -> str:
        """Return a line for the user."""
        if self.dynamic:
            return 'batch, height and width are free'
        batch = 'the batch is free' if self.free else 'the batch is 1'
        return f'height and width are fixed at {self.size[0]} x {self.size[1]}, {batch}: {self.reason}'


def export_model(
    model: DeployedSegmentor, path: Path, size: tuple[int, int], metadata: dict[str, str], tolerance: float
) -> Exported:
    """Write a model to a file and compare the file with the model on random images of several sizes.

    First batch, height and width are free. If the network does not allow this, only the batch is free, or
    nothing.

    Args:
        model (DeployedSegmentor): The model, on the CPU.
        path (Path): The file. The suffix ``.onnx`` makes ONNX, any other TorchScript.
        size (tuple[int, int]): (height, width) in pixels of a typical image, or the fixed size.
        metadata (dict[str, str]): Entries that the file contains.
        tolerance (float): Largest difference, see :func:`largest_difference`.

    Returns:
        Exported: What was written.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is not installed.
        RuntimeError: The file cannot be written, or its results differ from those of the model.
    """
    if path.suffix == '.onnx':
        _import('onnx')
        _import('onnxruntime')
    reason = ''
    for free in (_NAMES, _NAMES[:1], ()):
        entries = metadata | {'size': 'any' if 'height' in free else f'{size[0]} x {size[1]}'}
        try:
            _write(model, path, size, entries, free)
            _verify(model, open_file(path, threads=1), size, tolerance, free)
            return Exported(path, size, free, reason)
        except Exception as error:  # tracing third-party code can raise anything
            # Keep the text only. An error in a variable lives, with the session of onnxruntime, until Python
            # collects cycles. In a forked worker of a data loader, the destructor of the session then waits
            # for threads that only this process has.
            text = (str(error).strip() or 'no message').splitlines()[0][:200]
            text = f'{type(error).__name__}: {text}'
            if not free:
                raise RuntimeError(
                    f'the network cannot be exported at {size[0]} x {size[1]} pixels ({text}).'
                ) from error
            reason = reason or text
    raise AssertionError('the last attempt returns or raises')


def open_file(path: Path, threads: int = 0) -> Runner:
    """Open an exported file.

    Args:
        path (Path): An ONNX file (``.onnx``) or a TorchScript file.
        threads (int): Threads of onnxruntime. 0: all cores.

    Returns:
        Callable: Maps images (N, C, H, W) float32 to logits (N, K, H, W) and labels (N, H, W).
    """
    if path.suffix != '.onnx':
        script = torch.jit.load(str(path))

        def run_script(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                logits, labels = script(torch.from_numpy(image))
            return logits.numpy(), labels.numpy()

        return run_script
    onnxruntime = _import('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, not printed
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda image: tuple(session.run(list(OUTPUTS), {INPUT: image}))


def largest_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the largest difference of logits (N, K, H, W), divided by max(1, largest absolute logit)."""
    return float(np.abs(expected - found).max() / max(1.0, np.abs(expected).max()))


def _import(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f'ONNX files need the package {package}: run "{INSTALL}".') from error


def _write(
    model: DeployedSegmentor, path: Path, size: Sequence[int], metadata: dict[str, str], free: Sequence[str]
) -> None:
    # The trace contains only what runs. This size is not a multiple of the patch, so the resize to a multiple
    # runs. It is not the size of the training, so the position embeddings are resampled.
    sides = [_odd(side * 3 // 4) for side in size] if 'height' in free else list(size)
    example = torch.rand(2 if free else 1, model.in_channels, *sides) * 255
    with traceable():
        if path.suffix != '.onnx':
            script = torch.jit.trace(model, example, check_trace=False)
            torch.jit.save(script, str(path), _extra_files={'metadata.json': json.dumps(metadata)})
            return
        axes = {
            name: {axis: label for axis, label in zip(places, _NAMES, strict=True) if label in free}
            for name, places in _AXES.items()
        }
        torch.onnx.export(
            copy.deepcopy(model),  # the exporter folds norm layers into convolutions, in place
            (example,),
            str(path),
            dynamo=False,  # torch.export takes minutes, and each size that it makes constant ends it
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
        )
    onnx = _import('onnx')
    proto = onnx.load(str(path))
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, str(path))


def _odd(side: int) -> int:
    """Return the largest number up to ``side`` that is no multiple of 2, 3, 5 or 7 (and at least 1)."""
    return next((number for number in range(side, 0, -1) if all(number % p for p in (2, 3, 5, 7))), 1)


def _verify(
    model: DeployedSegmentor, run: Runner, size: tuple[int, int], tolerance: float, free: Sequence[str]
) -> None:
    shapes = [(1, *size)]
    if free:
        height, width = size
        shapes.append((3, height * 7 // 8, _odd(width * 5 // 8)) if 'height' in free else (3, *size))
    generator = np.random.default_rng(0)
    for count, height, width in shapes:
        image = generator.uniform(0, 255, (count, model.in_channels, height, width)).astype(np.float32)
        difference = largest_difference(model.predict(image)[0], run(image)[0])
        if not difference <= tolerance:
            raise RuntimeError(
                f'the logits of {count} images of {height} x {width} pixels differ by {difference:.1e}, '
                f'expected at most {tolerance:.0e}'
            )
