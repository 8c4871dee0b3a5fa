"""Time and peak memory of this project's parts, side by side with a straightforward implementation of each.

    python tools/benchmark.py bottleneck --preset coco      # AllSpark's bottleneck, forward and backward
    python tools/benchmark.py memory                        # writing the semantic memory
    python tools/benchmark.py step --preset voc --amp       # a whole training step
    python tools/benchmark.py data --images data/voc/JPEGImages      # the training pipelines, on one core
    python tools/benchmark.py inference                     # what the bottleneck costs in prediction

Times: after a warm-up both sides take turns in one process; medians are told. Peak memory: each side runs
once in a fresh process of its own, and what that process held after its imports is not counted (on CUDA: what
PyTorch allocated at most). The other side is benchmarks/plain_*.py; for ``inference`` it is the same network
without the bottleneck.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor

from allspark_mmseg.environment import installed_stack
from allspark_mmseg.methods.allspark import AllSparkBottleneck, SemanticMemory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.plain_bottleneck import PlainBottleneck, plain_memory_update  # noqa: E402

# images: labeled, unlabeled in a step; stored: (width, height) of an image file
PRESETS = {
    'voc': dict(classes=21, crop=513, images=(2, 2), channels=512, stored=(500, 375)),
    'cityscapes': dict(classes=19, crop=801, images=(2, 2), channels=512, stored=(2048, 1024)),
    'coco': dict(classes=81, crop=513, images=(4, 4), channels=512, stored=(640, 480)),
    'camvid': dict(classes=11, crop=193, images=(4, 4), channels=256, stored=(480, 360)),
}
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: what the table calls it.
        ours: makes inputs and network, and returns the function to measure.
        reference: the same for the other side.
        calls: what the function does so many times, where the time of one is told.
        peak: measure peak memory.
    """

    name: str
    ours: Callable[[], Callable[[], object]]
    reference: Callable[[], Callable[[], object]]
    calls: int = 1
    peak: bool = True


@dataclass(frozen=True)
class Result:
    """What a case gave; a ratio above 1 is in favor of ours, None is what was not measured."""

    name: str
    ours_s: float
    reference_s: float
    speedup: float
    ours_peak_mb: float | None
    reference_peak_mb: float | None
    memory_ratio: float | None


def bottleneck(options: argparse.Namespace) -> Iterator[Case]:
    """Forward and backward pass of the bottleneck, memory on; first a proof that both sides agree."""
    if options.side is None:
        check_agreement(options)
    passes = [('fp32', 'fp32', 0.0), ('fp32', 'fp32', 0.1), ('bf16', 'fp32', 0.1)]
    if options.dtype or options.dropout is not None:
        dtype = options.dtype or 'fp32'
        passes = [(dtype, dtype, 0.1 if options.dropout is None else options.dropout)]
    for ours, plain, p in passes:
        dtypes = ours if ours == plain else f'ours {ours}, reference {plain}'
        yield Case(
            f'bottleneck {sizes(options)}, dropout {p:g}, {dtypes}',
            ours=lambda dtype=ours, p=p: bottleneck_pass(AllSparkBottleneck, options, dtype, p),
            reference=lambda dtype=plain, p=p: bottleneck_pass(PlainBottleneck, options, dtype, p),
        )


def bottleneck_pass(kind: type, options, dtype: str, dropout: float, state: dict | None = None) -> Callable:
    """Make a bottleneck and its inputs; the function returns its output and the feature's gradient."""
    torch.manual_seed(0)
    labeled, unlabeled = options.images
    side, decoded = -(-options.crop // 32), -(-options.crop // 4)
    feature = torch.randn(labeled + unlabeled, options.channels, side, side, device=options.device)
    logits = torch.randn(unlabeled, options.classes, decoded, decoded, device=options.device)
    direction = torch.randn_like(feature)
    net = kind(options.channels, options.classes, crop_size=options.crop, dropout=dropout)
    if state is not None:
        net.load_state_dict(state)
    net.to(options.device).train()

    def run() -> tuple[Tensor, Tensor]:
        net.zero_grad()
        leaf = feature.detach().requires_grad_()
        with autocast(options, dtype):
            out = net.forward_semi(leaf, labeled, logits, read_memory=True)
        out.backward(direction.to(out.dtype))
        return out.detach(), leaf.grad

    return run


def check_agreement(options: argparse.Namespace) -> None:
    """Stop unless both bottlenecks give the same output and gradient in float32, without dropout."""
    in_tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    torch.manual_seed(1)
    state = AllSparkBottleneck(options.channels, options.classes, crop_size=options.crop).state_dict()
    found, expected = (
        bottleneck_pass(kind, options, 'fp32', 0.0, state)() for kind in (AllSparkBottleneck, PlainBottleneck)
    )
    torch.backends.cudnn.allow_tf32 = in_tf32
    output, gradient = (
        float((ours - plain).abs().max() / plain.abs().max())
        for ours, plain in zip(found, expected, strict=True)
    )
    told = f'output {output:.1e}, gradient {gradient:.1e}, relative to the largest value'
    if not max(output, gradient) <= TOLERANCE:
        raise SystemExit(f'bottleneck: ours and the reference differ ({told}); {TOLERANCE:g} is allowed.')
    print(f'Largest difference of the two sides (fp32, dropout 0): {told}.')


def memory(options: argparse.Namespace) -> Iterator[Case]:
    """Writing the unlabeled channels of one step to the semantic memory."""

    def update(*, plain: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        unlabeled, positions = options.images[1], (-(-options.crop // 32)) ** 2
        ring = SemanticMemory(options.classes, options.channels, positions).to(options.device)
        tokens = torch.randn(unlabeled, positions, options.channels, device=options.device)
        classes = torch.randint(options.classes, (unlabeled, options.channels), device=options.device)
        if plain:
            return lambda: plain_memory_update(ring.rows, ring.pointer, tokens, classes)
        return lambda: ring.update(tokens, classes)

    name = f'memory update {sizes(options)}'
    yield Case(name, ours=lambda: update(plain=False), reference=lambda: update(plain=True))


def step(options: argparse.Namespace) -> Iterator[Case]:
    """One training step of AllSpark: pseudo-labels, forward, backward, SGD."""
    dtype = options.dtype or 'fp32'
    passes = [(dtype, dtype, False)]
    if options.amp:
        passes.append((f'ours bf16, reference {dtype}', 'bf16', False))
    if options.checkpointing:
        passes += [(f'{told}, ours checkpointing', ours, True) for told, ours, _ in passes]
    for told, ours, checkpointing in passes:
        yield Case(
            f'step {options.backbone} {sizes(options)}, {told}',
            ours=lambda dtype=ours, c=checkpointing: training_step(options, dtype, checkpointing=c),
            reference=lambda: training_step(options, dtype, plain=True),
        )


def training_step(options, dtype: str, *, plain: bool = False, checkpointing: bool = False) -> Callable:
    """Make a network, its bottleneck ours or the plain one, that trains on random images."""
    torch.manual_seed(0)
    dropout = 0.1 if options.dropout is None else options.dropout
    segmentor = network(options, checkpointing=checkpointing, dropout=dropout)
    model = MODELS.build(ConfigDict(type='allspark_mmseg.AllSpark', segmentor=segmentor))
    if plain:
        ours = model.decode_head.bottleneck
        model.decode_head.bottleneck = PlainBottleneck(
            ours.map_in[0].in_channels, options.classes, crop_size=options.crop, dropout=dropout
        )
        model.decode_head.bottleneck.load_state_dict(ours.state_dict())
    model.to(options.device).train()
    model.memory_ready.fill_(True)
    (labeled, unlabeled), crop, device = options.images, options.crop, options.device
    inputs = dict(
        labeled=torch.randn(labeled, 3, crop, crop, device=device),
        weak=torch.randn(unlabeled, 3, crop, crop, device=device),
    )
    masks = torch.randint(options.classes, (labeled, 1, crop, crop), device=device)
    samples = dict(labeled=[SegDataSample(gt_sem_seg=PixelData(data=mask)) for mask in masks])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def run() -> None:
        with autocast(options, dtype):
            losses = model.loss(inputs, samples)
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()

    return run


def inference(options: argparse.Namespace) -> Iterator[Case]:
    """Logits of one image, by a network with the bottleneck (ours) and by the same without (reference)."""
    dtype = options.dtype or 'fp32'

    def logits(*, with_bottleneck: bool) -> Callable[[], Tensor]:
        torch.manual_seed(0)
        net = MODELS.build(ConfigDict(network(options, with_bottleneck=with_bottleneck)))
        net.to(options.device).eval()
        image = torch.randn(1, 3, options.crop, options.crop, device=options.device)

        @torch.inference_mode()
        def run() -> Tensor:
            with autocast(options, dtype):
                return net(image)

        return run

    yield Case(
        f'inference {options.backbone} {options.preset} (K={options.classes}, 1 x {options.crop}^2), {dtype}',
        ours=lambda: logits(with_bottleneck=True),
        reference=lambda: logits(with_bottleneck=False),
    )


def data(options: argparse.Namespace) -> Iterator[Case]:
    """The training pipelines of both views, from the file to the packed crop; times are one image's."""
    from benchmarks.pipelines import our_images, reference_images

    cv2.setNumThreads(0)  # as in a worker of a data loader
    with tempfile.TemporaryDirectory() as temporary:
        source = options.folder or make_images(Path(temporary), options.stored, number=16)
        images = sorted(path for path in source.iterdir() if path.suffix.lower() in ('.jpg', '.png'))
        if not images:
            raise SystemExit(f'--images is {source}, which holds no .jpg or .png; give a folder of images.')
        pairs = [(str(image), make_mask(image, Path(temporary))) for image in images[: options.count]]
        paths = list(islice(cycle(pairs), options.count))

        def consume(pipeline: Callable, labeled: bool) -> Callable[[], None]:
            seeds = count()  # the work of an image depends on its draws, so every repeat draws anew

            def run() -> None:
                for _ in pipeline(paths, options.crop, next(seeds), labeled):
                    pass

            return run

        for view, labeled in (('labeled', True), ('unlabeled', False)):
            yield Case(
                f'data, {view} view, {options.preset} (crop {options.crop}), {len(paths)} images',
                ours=lambda labeled=labeled: consume(our_images, labeled),
                reference=lambda labeled=labeled: consume(reference_images, labeled),
                calls=len(paths),
                peak=False,
            )


def make_images(folder: Path, size: tuple[int, int], number: int) -> Path:
    """Write JPEG images whose files are about as large as those of photographs: soft shapes, fine noise."""
    generator = np.random.default_rng(0)
    for i in range(number):
        soft = cv2.resize(generator.integers(0, 256, (12, 16, 3), np.uint8), size)
        noisy = np.clip(soft + generator.normal(0, 8, soft.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f'{i:03}.jpg'), noisy)
    return folder


def make_mask(image: Path, folder: Path) -> str:
    """Write a mask as large as the image, some rectangles of 21 classes, whatever the image shows."""
    with Image.open(image) as opened:  # as stored, whatever its orientation tag says
        size = opened.size
    classes = np.random.default_rng(0).integers(0, 21, (3, 4), np.uint8)
    path = folder / f'{image.name}_mask.png'
    cv2.imwrite(str(path), cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST))
    return str(path)


COMMANDS = dict(bottleneck=bottleneck, memory=memory, step=step, data=data, inference=inference)


def network(options, *, with_bottleneck=True, checkpointing: bool = False, dropout: float = 0.1) -> dict:
    """Config of a SegFormer as in configs/, without pre-trained weights."""
    segmentor = Config.fromfile(ROOT / f'configs/_base_/models/segformer_{options.backbone}.py').model
    segmentor.backbone.update(init_cfg=None, with_cp=checkpointing)
    decoder = segmentor.decode_head
    decoder.update(num_classes=options.classes, norm_cfg=dict(type='BN'))
    if with_bottleneck:
        segmentor.decode_head = dict(
            type='allspark_mmseg.AllSparkHead',
            bottleneck=dict(in_channels=decoder.in_channels[-1], crop_size=options.crop, dropout=dropout),
            decoder=decoder,
        )
    return segmentor


def autocast(options: argparse.Namespace, dtype: str) -> torch.autocast:
    """Mixed precision; none for fp32."""
    if dtype == 'fp32':
        return torch.autocast(options.device, enabled=False)
    return torch.autocast(options.device, dtype=DTYPES[dtype])


def sizes(options: argparse.Namespace) -> str:
    """Preset and sizes, for the name of a case."""
    labeled, unlabeled = options.images
    return f'{options.preset} (K={options.classes}, {labeled}+{unlabeled} x {options.crop}^2)'


def seconds(run: Callable[[], object], device: str) -> float:
    """Time one call, to the end of what it started on the device."""
    start = time.perf_counter()
    run()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_times(case: Case, options: argparse.Namespace) -> list[float]:
    """Seconds of ours and of the reference, which take turns, so that a disturbance meets both."""
    runs = [case.ours(), case.reference()]
    for _ in range(3 if options.device == 'cuda' else 1):
        for run in runs:
            seconds(run, options.device)
    times = [[seconds(run, options.device) for run in runs] for _ in range(options.repeats)]
    return [median(of_side) / case.calls for of_side in zip(*times, strict=True)]


def resident_mb(field: str) -> float:
    """MB that this process holds (VmRSS) or held at most (VmHWM)."""
    # getrusage would do on other systems, but its maximum includes the process that started this one
    status = Path('/proc/self/status')
    if not status.is_file():
        raise SystemExit('Peak memory on a CPU is read from /proc/self/status (Linux); use --no-peak.')
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def peak_of_this_process(make: Callable[[], Callable[[], object]], device: str) -> float:
    """MB that one side takes at most, in a process that did nothing else."""
    before = 0.0 if device == 'cuda' else resident_mb('VmRSS')
    seconds(make(), device)
    return torch.cuda.max_memory_allocated() / 2**20 if device == 'cuda' else resident_mb('VmHWM') - before


def peak_of_fresh_process(number: int, side: str, arguments: list[str]) -> float:
    """Run one side of a case in a new process, whose last line is the peak."""
    command = [sys.executable, __file__, *arguments, '--side', side, '--case', str(number)]
    # glibc then hands freed tensors back at once; else the holes that they leave are measured, too
    environment = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': str(2**20)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f'{side} failed in the process that measures its memory:\n{done.stderr}')
    return float(done.stdout.splitlines()[-1])


def measure(number: int, case: Case, options: argparse.Namespace, arguments: list[str]) -> Result:
    """Measure both sides of a case."""
    peaks = [None, None]
    if case.peak and options.peak:
        peaks = [peak_of_fresh_process(number, side, arguments) for side in ('ours', 'reference')]
    ours, reference = median_times(case, options)
    ratio = None if None in peaks else peaks[1] / peaks[0]
    return Result(case.name, ours, reference, reference / ours, *peaks, ratio)


def machine(options: argparse.Namespace) -> dict:
    """Where and with what this is measured; ``load``, the last minute's, tells if others were at work."""
    cpu, info = platform.processor() or platform.machine(), Path('/proc/cpuinfo')
    if info.is_file() and 'model name' in (text := info.read_text()):
        cpu = text.split('model name')[1].splitlines()[0].strip(' \t:')
    return {
        'cpu': cpu,
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'threads': torch.get_num_threads(),
        'load': round(os.getloadavg()[0], 2),
        'gpu': torch.cuda.get_device_name() if options.device == 'cuda' else None,
        'python': platform.python_version(),
        'torch': torch.__version__,
        **{name: number for stack in installed_stack().values() for name, number in stack.items()},
    }


def table(results: list[Result]) -> str:
    """One line a case."""

    def cell(value: float | None, unit: str) -> str:
        return '-' if value is None else f'{value:.{3 if value < 1 else 2 if value < 10 else 0}f} {unit}'

    lines = [('', 'ours', 'reference', 'speed-up', 'peak: ours', 'reference', 'ratio')]
    for result in results:
        name, *numbers = asdict(result).values()
        numbers[:2] = (1000 * value for value in numbers[:2])
        units = ('ms', 'ms', 'x', 'MB', 'MB', 'x')
        lines.append((name, *map(cell, numbers, units)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(f'{text:{side}{width}}' for text, side, width in zip(line, '<>>>>>>', widths, strict=True))
        for line in lines
    )


def remark(command: str, result: Result) -> str | None:
    """Tell a result in the unit that its subject is usually told in."""
    if command == 'inference':
        return f'The bottleneck adds {100 / result.speedup - 100:.1f} % to the time of the forward pass.'
    if command == 'data':
        rates = f'{1 / result.ours_s:.1f} images/s a worker, reference {1 / result.reference_s:.1f}'
        return f'{result.name}: {rates}.'
    return None


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} found, expected a whole number of at least 1')
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """Build the command line; sizes that are not given come from the preset."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    commands = parser.add_subparsers(dest='command', required=True)
    first = dict(bottleneck='voc', memory='coco', step='camvid', data='voc', inference='voc')
    for name, function in COMMANDS.items():
        add = commands.add_parser(name, help=function.__doc__, description=function.__doc__).add_argument
        add('--preset', choices=PRESETS, default=first[name], help='where sizes come from; %(default)s')
        add('--crop', type=positive, help="pixels of a side; default the preset's")
        add('--repeats', type=positive, default=50 if name == 'memory' else 5, help='default %(default)s')
        add('--json', type=Path, metavar='FILE', help='write machine and results there')
        add('--side', choices=['ours', 'reference'], help=argparse.SUPPRESS)
        add('--case', type=int, help=argparse.SUPPRESS)
        if name == 'data':
            add('--images', dest='folder', type=Path, metavar='FOLDER', help='default: images made up')
            add(
                '--count',
                type=positive,
                default=64,
                help='images a repeat, some of them again if there are fewer; default %(default)s',
            )
            continue
        add('--device', choices=['cpu', 'cuda'], default='cpu')
        add('--threads', type=positive, help="of PyTorch on a CPU; default PyTorch's own choice")
        add('--classes', type=positive, help="default the preset's")
        add('--no-peak', dest='peak', action='store_false', help='do not measure peak memory')
        if name != 'inference':
            add('--images', type=positive, nargs=2, metavar=('LABELED', 'UNLABELED'), help='in a step')
        if name in ('bottleneck', 'memory'):
            add('--channels', type=positive, help="width of the bottleneck; default the preset's")
        if name != 'memory':
            add('--dtype', choices=DTYPES, help='of both sides, by autocast')
        if name in ('bottleneck', 'step'):
            add('--dropout', type=float, help='in the attention; 0.1 if not given (bottleneck: 0 and 0.1)')
        if name in ('step', 'inference'):
            help_ = 'mit-b0 for camvid, else mit-b5 on cuda, mit-b2 on a CPU'
            add('--backbone', choices=[f'mit-b{i}' for i in range(6)], help=help_)
        if name == 'step':
            add('--amp', action='store_true', help='also ours in bf16, the reference as it is')
            add('--checkpointing', action='store_true', help="also ours with the backbone's checkpointing")
    return parser


def parse_args(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, and fill in what the preset says."""
    parser = make_parser()
    # for subcommands without these options; data runs as in one worker
    options = argparse.Namespace(device='cpu', threads=1, dropout=None, backbone=None, folder=None)
    parser.parse_args(arguments, options)
    for name, value in PRESETS[options.preset].items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    large = 'mit-b5' if options.device == 'cuda' else 'mit-b2'
    options.backbone = options.backbone or ('mit-b0' if options.preset == 'camvid' else large)
    if options.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device is cuda, but PyTorch finds no CUDA device; use --device cpu.')
    if options.crop < 64:
        parser.error(f'--crop is {options.crop}, expected at least 64: two positions of the deepest feature.')
    if options.dropout is not None and not 0 <= options.dropout < 1:
        parser.error(f'--dropout is {options.dropout:g}, expected a number in [0, 1).')
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f'--images is {options.folder}, which is no folder; give one that holds images.')
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure and tell."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse_args(arguments)
    init_default_scope('mmseg')
    if options.threads:
        torch.set_num_threads(options.threads)
    cases = COMMANDS[options.command](options)
    if options.side:
        case = next(islice(cases, options.case, None))
        print(peak_of_this_process(getattr(case, options.side), options.device))
        return
    found = machine(options)
    print(', '.join(f'{key} {value}' for key, value in found.items() if value is not None))
    results = [measure(number, case, options, arguments) for number, case in enumerate(cases)]
    print(table(results))
    for told in filter(None, (remark(options.command, result) for result in results)):
        print(told)
    if options.json:
        report = dict(machine=found, command=arguments, results=[asdict(result) for result in results])
        options.json.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
