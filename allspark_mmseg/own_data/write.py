"""The configs: one with all choices, and one of a few lines for each other method."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import CONFIGS
from .choices import Choices
from .colors import Color
from .files import WORK
from .state import State, digest, write_if_changed

_WINDOW = "test_cfg=dict(mode='slide', crop_size=(1025, 1025), stride=(769, 769))"
_RECIPES = {'small': '_small', 'mit-b0': '_mit-b0', 'mit-b2': ''}
# length of phase 1 (at most) and of phase 2 in the recipes
_ITERATIONS = {'small': (1000, 1000), 'mit-b0': (5000, 10000), 'mit-b2': (5000, 10000)}
_PASSES = 20  # over the labeled images in phase 1, at least

_WITHOUT_MEMORY = """\
default_hooks = dict(_delete_=True, **_base_.default_hooks)
del default_hooks['memory_warm_up']  # AllSpark's
"""
_METHOD = """
# {kind} with the data, the {network} and the schedule of allspark.py.
_base_ = './allspark.py'
segmentor = _base_.model.segmentor
{head}
teacher = dict(momentum=_base_.model.teacher.momentum)
model = dict(_delete_=True, type='allspark_mmseg.{kind}', segmentor=segmentor, teacher=teacher,
             {argument}predict_on='teacher')
"""
_SAME_HEAD = "segmentor.decode_head = segmentor.decode_head.decoder  # without AllSpark's bottleneck"
_CSS_HEAD = """\
decoder = segmentor.decode_head.decoder
segmentor.decode_head = dict(
    type='allspark_mmseg.RepresentationHead', in_index=(0, 3), dilations=(1, 3, 6, 9),
    in_channels=(decoder.in_channels[0], decoder.in_channels[-1]), channels=decoder.channels,
    norm_cfg=dict(type='GN', num_groups=16), num_classes=decoder.num_classes,
    loss_decode=decoder.loss_decode)"""
_THRESHOLD = 'threshold=_base_.model.threshold'
_WEIGHT = 'strong_weight=1.0, '  # measured with ClassBalanced; the default with 0.95
_TWO_VIEWS = """\
unlabeled = dict(pipeline=[*_base_.load_unlabeled, _base_.crop, _base_.two_strong_views])
train_dataloader = dict(dataset=dict(unlabeled=unlabeled))
"""
_SUPERVISED = f"""
# Supervised training with the data and the network of allspark.py, which contains it as its first phase.
_base_ = './allspark.py'
segmentor, sampler = _base_.model.segmentor, _base_.train_dataloader.sampler
segmentor.decode_head = segmentor.decode_head.decoder
model = dict(segmentor, _delete_=True)
pipeline = [*_base_.load_labeled, _base_.crop, *_base_.color, _base_.pack]
train_dataloader = dict(batch_size=sampler.labeled, sampler=dict(_delete_=True, type='InfiniteSampler'),
                        dataset=dict(labeled=dict(pipeline=pipeline), unlabeled=None))
custom_hooks = [hook for hook in _base_.custom_hooks if hook.type != 'allspark_mmseg.WarmStartHook']
auto_scale_lr = dict(base_batch_size=sampler.labeled)
{_WITHOUT_MEMORY}"""


@dataclass(frozen=True)
class DataSet:
    """What a config says about the data.

    Attributes:
        root (str): The data, relative to the working directory or absolute.
        classes (Sequence[str]): The classes.
        palette (Sequence): RGB of the classes.
        labeled, unlabeled, val (int): Number of images.
    """

    root: str
    classes: Sequence[str]
    palette: Sequence[Color]
    labeled: int
    unlabeled: int
    val: int


def base_of(out: Path, recipe: str) -> str:
    """Return the Python expression that names a recipe in a config.

    Args:
        out (Path): Folder of the config.
        recipe (str): Name of the recipe, for example ``'allspark'``.

    Returns:
        str: A relative path if the config is in ``configs`` of a checkout. Otherwise, the folder of the
        installed package: MMEngine's ``package::config`` knows the packages of OpenMMLab only.
    """
    configs = Path(CONFIGS).resolve()
    path = f'_base_/recipes/{recipe}.py'
    if configs in out.resolve().parents:
        return repr(Path(os.path.relpath(configs / path, out.resolve())).as_posix())
    return f"__import__('allspark_mmseg').CONFIGS + '/{path}'"


def main_config(command: str, out: Path, data: DataSet, choices: Choices) -> str:
    """Write the config with all choices: AllSpark, or supervised training without unlabeled images.

    Args:
        command (str): The command line, for the header.
        out (Path): Folder of the config.
        data (DataSet): The data.
        choices (Choices): The settings.

    Returns:
        str: At most 15 lines.
    """
    semi = data.unlabeled > 0
    recipe = ('allspark' if semi else 'supervised') + _RECIPES[choices.network]
    metainfo = f'dict(classes={tuple(data.classes)!r}, palette={[list(color) for color in data.palette]!r})'
    total = choices.labeled + choices.unlabeled
    sampler = f'sampler=dict(labeled={choices.labeled}, unlabeled={choices.unlabeled}), ' if semi else ''
    crop = "dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)"
    if choices.rare:
        crop = "dict(type='allspark_mmseg.RareClassCrop', crop_size=crop_size, rare_prob=0.5)"
    lines = [
        f'# Written by `{command}`: {data.labeled} labeled, {data.unlabeled} unlabeled, '
        f'{data.val} validation images.',
        _comment(f'_base_ = {base_of(out, recipe)}', choices.network_reason),
        f'data_root, metainfo = {data.root!r}, {metainfo}',
        _comment(f'crop_size = ({choices.crop}, {choices.crop})', choices.crop_reason),
        _comment(f'crop = {crop}', choices.rare),
        _comment(f'train_dataloader = dict(batch_size={total}, {sampler}dataset=dict(', choices.step_reason),
        '    data_root=data_root, metainfo=metainfo,',
        f"    labeled=dict(ann_file='{WORK}/labeled.txt', "
        'pipeline=[*_base_.load_labeled, crop, *_base_.labeled_views])' + (',' if semi else '))'),
    ]
    if semi:
        lines.append(
            f"    unlabeled=dict(ann_file='{WORK}/unlabeled.txt', "
            'pipeline=[*_base_.load_unlabeled, crop, *_base_.unlabeled_views])))'
        )
    lines += [
        'val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, '
        f"ann_file='{WORK}/val.txt'))",
        'test_dataloader = val_dataloader',
        _model(choices, len(data.classes), semi),
        *_iterations(choices, data.labeled, semi),
        f'auto_scale_lr = dict(base_batch_size={total})',
    ]
    return '\n'.join(lines) + '\n'


def _comment(line: str, reason: str) -> str:
    return f'{line}  # {reason}' if reason else line


def _model(choices: Choices, count: int, semi: bool) -> str:
    window = f', {_WINDOW}' if choices.window else ''
    reasons = ['large images are predicted in windows'] if choices.window else []
    if not semi:
        model = f'dict(data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes={count}){window})'
    else:
        head = f'dict(bottleneck=dict(crop_size=crop_size), decoder=dict(num_classes={count}))'
        threshold = ', threshold=0.95' if choices.background else ''
        reasons += [f'only confident pseudo-labels: {choices.background}'] if choices.background else []
        segmentor = f'dict(data_preprocessor=dict(size=crop_size), decode_head={head}{window})'
        model = f'dict(segmentor={segmentor}{threshold})'
    return _comment(f'model = {model}', '; '.join(reasons))


def _iterations(choices: Choices, labeled: int, semi: bool) -> list[str]:
    first, second = _ITERATIONS[choices.network]
    # whole validation intervals; four times the recipe at most
    factor = min(max(-(-_PASSES * labeled // (first * choices.labeled)), 1), 4)
    first, second = factor * first, factor * second
    passes = first * choices.labeled // labeled
    schedule = f'[dict(_base_.param_scheduler[0], end={second})]'
    length = f'train_cfg, param_scheduler = dict(max_iters={second}), {schedule}'
    if not semi:
        passes = second * choices.labeled // labeled
        return [f'{length}  # {passes} passes over the labeled images']
    hooks = f'custom_hooks = [dict(_base_.custom_hooks[0], max_iters={first}), *_base_.custom_hooks[1:]]'
    return [
        f'{hooks}  # supervised iterations, at most: {passes} passes over the labeled images',
        f'{length}  # iterations with unlabeled images',
    ]


_METHODS = {  # class, its arguments, and the views if they are not those of AllSpark
    'fixmatch': ('FixMatch', f'{_THRESHOLD}, {_WEIGHT}', ''),
    'mean_teacher': ('MeanTeacher', 'ignore_padding=True, ', ''),
    'unimatch': ('UniMatch', f'{_THRESHOLD}, ', _TWO_VIEWS),
    'unimatch_v2': ('UniMatchV2', f'{_THRESHOLD}, ', _TWO_VIEWS),
    'css': ('CSSMix', 'contrast_ramp_down=None, ignore_padding=True, ', ''),
}


def method_configs(choices: Choices) -> dict[str, str]:
    """Return the configs of the other methods, which inherit ``allspark.py`` of the same folder.

    Args:
        choices (Choices): The settings of ``allspark.py``.

    Returns:
        dict[str, str]: Name -> text.
    """
    configs = {'supervised': _SUPERVISED.lstrip()}
    for name, (kind, argument, views) in _METHODS.items():
        if choices.background:
            argument = argument.replace(_WEIGHT, '')
        head, network = (_CSS_HEAD, 'backbone') if name == 'css' else (_SAME_HEAD, 'network')
        text = _METHOD.format(kind=kind, argument=argument, head=head, network=network)
        configs[name] = (text + views + _WITHOUT_MEMORY).lstrip()
    return configs


def write_configs(out: Path, texts: Mapping[str, str], state: State) -> tuple[list[Path], list[str]]:
    """Write configs. One that the user has edited stays, and the new text goes to ``NAME.new.py``.

    Args:
        out (Path): The folder.
        texts (Mapping[str, str]): Name -> text.
        state (State): Memory of the data set, changed in place.

    Returns:
        tuple[list[Path], list[str]]: The files that were written, and sentences about edited ones.
    """
    written, notes = [], []
    for name, text in texts.items():
        path = out / f'{name}.py'
        key = str(path.resolve())
        old = path.read_text() if path.is_file() else None
        if old is not None and old != text and state.configs.get(key) != digest(old):
            new = path.with_name(f'{name}.new.py')
            write_if_changed(new, text)
            notes.append(f'{path} is not as the last run wrote it and is kept; {new} has the new text.')
            continue
        if write_if_changed(path, text):
            written.append(path)
        state.configs[key] = digest(text)
    return written, notes
