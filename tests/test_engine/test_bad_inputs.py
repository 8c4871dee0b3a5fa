"""Bad inputs of ``train``: one sentence before the first iteration, and nothing to resume from."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from allspark_mmseg.cli import train

from ..helpers.odd_images import cut, write
from ..helpers.tiny_models import CROP, tiny_segmentor
from .conftest import NAMES

Change = Callable[[Config, Path], object]
TRAIN = 'train_dataloader'
DATA = f'{TRAIN}.dataset'
SELF_TRAINING = dict(_delete_=True, type='allspark_mmseg.SelfTraining', segmentor=tiny_segmentor())


# changes of the config: keys and values -> the message

SETTINGS: dict[str, tuple[dict, str]] = {
    'no model': ({'model': None}, r'config\.py has no model, but a training needs'),
    'no training data': ({TRAIN: None}, r'has no train_dataloader, but'),
    'no length': ({'train_cfg': None}, r'has no train_cfg, but'),
    'no optimizer': ({'optim_wrapper': None}, r'has no optim_wrapper, but'),
    'unknown method': ({'model.type': 'allspark_mmseg.Allspark'}, r'config: \S+\.Allspark is not in the'),
    'unknown transform': ({f'{DATA}.labeled.pipeline.0.type': 'LoadImg'}, r': LoadImg is not in the'),
    'unknown hook': ({'custom_hooks.0.type': 'allspark_mmseg.NoHook'}, r'allspark_mmseg\.NoHook is not in'),
    'unknown optimizer': ({'optim_wrapper.optimizer.type': 'Adamw'}, r'no Adamw\. Did you mean AdamW\?'),
    'unknown metric': ({'val_evaluator.type': 'IouMetric'}, r'IouMetric is not in'),
    'unknown argument of a hook': (
        {'custom_hooks.0.mask': True},
        r"StartupCheckHook.* unexpected keyword argument 'mask'",
    ),
    'unknown argument of a data set': ({f'{DATA}.labeled.foo': 1}, r"unexpected keyword argument 'foo'"),
    'learning rate below 0': ({'optim_wrapper.optimizer.lr': -1.0}, r'SGD.*Invalid learning rate: -1\.0'),
    'workers below 0': ({f'{TRAIN}.num_workers': -1}, r'num_workers'),
    'batch size of another sampler': (
        {f'{TRAIN}.batch_size': 4},
        r'batch_size is 4, .*1 labeled \+ 2 unlabeled .*set batch_size=3',
    ),
    'another sampler': (
        {f'{TRAIN}.sampler': dict(_delete_=True, type='DefaultSampler', shuffle=True)},
        r'sampler is a DefaultSampler.*allspark_mmseg\.DualStreamSampler',
    ),
    'no labeled images in a batch': ({f'{TRAIN}.sampler.labeled': 0}, r'labeled is 0, expected 1 or more'),
    'a batch larger than the stream': (
        {f'{TRAIN}.sampler.labeled': 4, f'{TRAIN}.batch_size': 6},
        r'the stream labeled has 3 images, but a step needs labeled=4',
    ),
    'no iterations': ({'train_cfg': dict(_delete_=True, type='allspark_mmseg.PhaseTrainLoop', max_iters=0)},
                      r'PhaseTrainLoop: max_iters is 0, expected 1 or more'),
    'three classes': (
        {f'{DATA}.{stream}.metainfo': dict(_delete_=True, classes=NAMES[:3], palette=[[0, 0, 0]] * 3)
         for stream in ('labeled', 'unlabeled')},
        r'train_dataloader: the data set \(ImageListDataset\) has 3 classes.*num_classes=4',
    ),
    'classes of the validation': (
        {'val_dataloader.dataset.metainfo': dict(_delete_=True, classes=('sky',), palette=[[0, 0, 0]])},
        r'val_dataloader: the data set \(ImageListDataset\) has 1 classes',
    ),
    'no class names': (
        {f'{DATA}.{stream}.metainfo': None for stream in ('labeled', 'unlabeled')},
        r'train_dataloader: the data set \(ImageListDataset\) has no class names.*metainfo=dict\(classes=',
    ),
    'classes of an auxiliary head': (
        {'model.segmentor.auxiliary_head': dict(
            type='FCNHead', in_channels=40, in_index=2, channels=8, num_convs=1, num_classes=3)},
        r'auxiliary_head \(FCNHead\) has num_classes=3, but the decode head has 4',
    ),
    'views of different sizes': (
        {'model.segmentor.data_preprocessor.size': None, 'model.segmentor.data_preprocessor.size_divisor': 1,
         f'{DATA}.unlabeled.pipeline.1.crop_size': (33, 65)},
        r"'labeled': \(65, 65\).*'weak': \(33, 65\)",
    ),
    'a crop unlike that of the memory': (
        {'model.segmentor.decode_head.bottleneck.crop_size': (97, 65)},
        r'the feature map is 3 x 3.*bottleneck\.crop_size=\(97, 65\)',
    ),
    'class weights of another number': (
        {'model.segmentor.decode_head.decoder.loss_decode': dict(
            _delete_=True, type='allspark_mmseg.CrossEntropyLoss', class_weight=[1.0, 2.0])},
        r'class_weight has 2 numbers, expected num_classes=4',
    ),
    'a share of 2': (
        {'default_hooks.unreadable_images': dict(type='allspark_mmseg.UnreadableImagesHook', max_share=2)},
        r'UnreadableImagesHook: max_share is 2, expected a share in \[0, 1\)',
    ),
    'a stride larger than the window': (
        {'model.segmentor.test_cfg': dict(_delete_=True, mode='slide', crop_size=CROP, stride=(80, 40))},
        r'model\.test_cfg: the stride \(80, 40\) is larger than the window',
    ),
    'pretrained weights that are missing': (
        {'model.segmentor.backbone.init_cfg': dict(type='Pretrained', checkpoint='no/mit_b0.pth')},
        r'cannot load checkpoint no/mit_b0\.pth',
    ),
}  # fmt: skip
METHODS = {  # method -> what it has in addition, the missing view, the views that it needs
    'MeanTeacher': ({}, 'strong_1', ['labeled', 'weak', 'strong_1']),
    'FixMatch': ({}, 'strong_1', ['labeled', 'weak', 'strong_1']),
    'UniMatch': ({}, 'strong_1', ['labeled', 'weak', 'strong_1', 'strong_2']),
    'UniMatchV2': (
        dict(mix_source='same_image'),
        'strong_1',
        ['labeled', 'weak', 'strong_1', 'strong_2', 'mix_weak', 'mix_strong_1', 'mix_strong_2'],
    ),
}
for _method, (_more, _missing, _needed) in METHODS.items():
    SETTINGS[f'a view that {_method} needs'] = (
        {'model': dict(SELF_TRAINING, type=f'allspark_mmseg.{_method}', **_more)},
        rf"{_method} trains on the views {re.escape(str(_needed))}.*the batch has \['labeled', 'weak'\].*"
        rf"dict\(type='allspark_mmseg\.MultiView', {_missing}=\[\.\.\.\]\)",
    )


# images, masks and lists -> the message


def picture(path: Path, size: tuple[int, int] = (72, 80)) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, labels=range(4), mode: str = 'L', size: tuple[int, int] = (72, 80)) -> Path:
    Image.fromarray(np.resize(np.asarray(labels, np.uint8), size)).convert(mode).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def pair(image: Callable[[Path], Path] = picture, labels: Callable[[Path], Path] = mask) -> Change:
    """One more labeled image with its mask."""

    def change(config: Config, folder: Path) -> None:
        row = f'{image(folder / "odd.png")}\t{labels(folder / "odd_mask.png")}'
        labeled = config.train_dataloader.dataset.labeled
        root = labeled.data_root
        rows = [f'{root}/{i}.png\t{root}/{i}_mask.png' for i in range(2)]
        labeled.ann_file = str(text(folder / 'odd.txt', '\n'.join([*rows, row])))

    return change


def listed(*lines: str, stream: str = 'labeled', **settings) -> Change:
    """Other lines in the list of a stream."""

    def change(config: Config, folder: Path) -> None:
        part = config.train_dataloader.dataset[stream]
        part.update(ann_file=str(text(folder / 'odd.txt', '\n'.join(lines))), **settings)

    return change


def rotated(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(picture(path)).convert('RGB').save(path.with_suffix('.jpg'), exif=exif)
    return path.with_suffix('.jpg')


def truncated_jpeg(path: Path) -> Path:
    Image.open(picture(path)).save(path.with_suffix('.jpg'))
    return cut(path.with_suffix('.jpg'))


def all_masks(labels) -> Change:
    """A single labeled image whose mask has these labels."""

    def change(config: Config, folder: Path) -> None:
        rows = f'{picture(folder / "a.png")}\t{mask(folder / "b.png", labels)}'
        config.train_dataloader.dataset.labeled.ann_file = str(text(folder / 'odd.txt', rows))

    return change


MASKS = r'train_dataloader: 1 mask\(s\) are invalid: \S+odd_mask\.png '
FILES: dict[str, tuple[Change, str]] = {
    'no data': (
        lambda config, folder: config.train_dataloader.dataset.labeled.update(data_root=str(folder / 'no')),
        r'data_root: expected a folder, found none at',
    ),
    'no list': (
        lambda config, folder: config.train_dataloader.dataset.labeled.update(ann_file='no.txt'),
        r"ann_file: expected a list of images, found no file at '.*no\.txt'",
    ),
    'an empty list': (listed(), r'expected at least one image, found none'),
    'a list of three columns': (listed('0.png 0_mask.png x.png'), r'odd\.txt:1: .* found 3 columns'),
    'a missing image': (listed('0.png 0_mask.png', 'no.png 1_mask.png'), r'1 of them do not exist'),
    'a missing mask': (listed('0.png no_mask.png'), r'expected 1 masks, found that 1 of them do not exist'),
    'no masks': (listed('0.png', '1.png'), r'expected masks because labeled=True, found none'),
    'labeled and unlabeled': (
        listed('0.png', '5.png', stream='unlabeled'),
        r'1 of 3 labeled images are also unlabeled images',
    ),
    'a split that is a file': (
        lambda config, folder: config.train_dataloader.dataset.update(split=str(text(folder / 'a.txt', ''))),
        r'split is .* which is a file',
    ),
    'a stream that is a text': (
        lambda config, folder: config.train_dataloader.dataset.update(unlabeled=['unlabeled.txt']),
        r'a source of the stream unlabeled is a str, expected a dict',
    ),
    'a folder without images': (
        lambda config, folder: config.train_dataloader.dataset.unlabeled.update(
            ann_file='', data_prefix=dict(img_path=str(folder))
        ),
        r"data_prefix\['img_path'\] .*expected at least one image, found none",
    ),
    'an empty image': (pair(lambda path: text(path, '')), r'1 of them are empty files'),
    'a web page': (
        pair(lambda path: text(path.with_suffix('.jpg'), '<!doctype html>')),
        r'train_dataloader\S* 1 image\(s\) .*odd\.jpg is a web page \(HTML\), not an image',
    ),
    'a pointer of Git LFS': (
        pair(lambda path: text(path, 'version https://git-lfs.github.com/spec/v1\n')),
        r'odd\.png is a pointer of Git LFS, not an image; run git lfs pull',
    ),
    'a truncated JPEG': (pair(truncated_jpeg), r'odd\.jpg is truncated'),
    'a truncated PNG': (pair(lambda path: cut(picture(path))), r'odd\.png is truncated'),
    'sixteen bits': (pair(lambda path: write('png L16', path)), r'have more than 8 bits per band'),
    'a mask of colors': (
        pair(labels=lambda path: mask(path, mode='RGB')),
        MASKS + 'has mode RGB of Pillow, not one byte per pixel',
    ),
    'a mask of two bytes': (
        pair(labels=lambda path: mask(path, mode='I;16')),
        MASKS + 'has mode I;16 of Pillow, not one byte per pixel',
    ),
    'a mask of another size': (
        pair(labels=lambda path: mask(path, size=(36, 40))),
        MASKS + r'has 40 x 36 pixels \(width x height\), its image \S+odd\.png has 80 x 72',
    ),
    'an image that EXIF rotates': (
        pair(rotated),
        MASKS + r"has 80 x 72 .* 72 x 80\. .*EXIF orientation; .*'color_ignore_orientation'",
    ),
    'a truncated mask': (
        pair(labels=lambda path: cut(mask(path, np.random.default_rng(0).integers(0, 4, 5760)))),
        MASKS + r'cannot be read \(',
    ),
    'strange labels': (
        pair(labels=lambda path: mask(path, [0, 1, 2, 3, 7, 200])),
        MASKS + r'has labels \[7, 200\] outside 0\.\.3 and 255',
    ),
    'labels from 1': (
        all_masks(range(1, 5)),
        r'labels are 1\.\.4, .*begin with 1: set reduce_zero_label=True',
    ),
    'one label more': (all_masks(range(5)), r'The labels are 0\.\.4\. If 0 means unlabeled'),
    'soft edges': (all_masks(range(0, 255, 3)), r'The masks have 85 different values\. Soft edges'),
    'masks of 0 and 255': (
        all_masks([0, 255]),
        r"no pixels of \['road', 'tree', 'car'\], and 255 \(ignored\) on 50\.0% of the pixels.*"
        r'write its number \(for example 1\) instead',
    ),
}


# the command line and what is already there: returns the options of the command


def weights(path: Path, **content) -> Path:
    torch.save(content, path)
    return path


def broken_config(content: str) -> Change:
    return lambda config, folder: [str(text(folder / 'broken.py', content))]


def load_from(make: Callable[[Path], Path]) -> Change:
    return lambda config, folder: config.update(load_from=str(make(folder / 'odd.pth')))


def other_checkpoint(**state) -> Change:
    def change(config: Config, folder: Path) -> list[str]:
        meta = dict(epoch=1, iter=2, method='AllSpark') | state.pop('meta', {})
        state_dict = {'student.decode_head.decoder.conv_seg.bias': torch.zeros(4)}
        return ['--resume', str(weights(folder / 'odd.pth', meta=meta, state_dict=state_dict, **state))]

    return change


def pointer(config: Config, folder: Path) -> list[str]:
    (folder / 'work').mkdir()
    text(folder / 'work' / 'last_checkpoint', 'iter_3.pth')
    return ['--resume']


COMMANDS: dict[str, tuple[Change, str]] = {
    'no config': (lambda config, folder: [str(folder / 'no.py')], r'the config \S+no\.py cannot be read'),
    'a syntax error': (broken_config('model = dict('), r'broken\.py cannot be read: SyntaxError'),
    'an unknown name': (broken_config('crop = size'), r"cannot be read: NameError: name 'size'"),
    'a base that is missing': (broken_config("_base_ = './no.py'"), r'cannot be read: .*no\.py'),
    'another file': (lambda config, folder: [str(text(folder / 'a.txt', ''))], r'a\.txt cannot be read'),
    'a misspelled option': (
        lambda *_: ['--cfg-options', 'train_dataloder.batch_size=4'],
        r'no key train_dataloder\. Did you mean train_dataloader\?',
    ),
    'an option below a number': (
        lambda *_: ['--cfg-options', 'train_dataloader.batch_size.labeled=4'],
        r'--cfg-options train_dataloader\.batch_size\.labeled: ',
    ),
    'an option of an absent hook': (
        lambda *_: ['--cfg-options', 'custom_hooks.9.masks=False'],
        r'custom_hooks\.9',
    ),
    'no number of the learning rate': (
        lambda *_: ['--auto-scale-lr'],
        r'has no auto_scale_lr\.base_batch_size',
    ),
    'float16 on the CPU': (lambda *_: ['--amp', 'fp16'], r'--amp fp16 needs an accelerator'),
    'a work dir that is a file': (
        lambda config, folder: text(folder / 'work', '') and [],
        r'the work dir \S+ cannot be written',
    ),
    'no checkpoint': (
        lambda config, folder: ['--resume', str(folder / 'no.pth')],
        r'checkpoint \S+no\.pth not fou',
    ),
    'a last checkpoint that is gone': (pointer, r'names iter_3\.pth, which is not there'),
    'a checkpoint of another method': (
        other_checkpoint(meta=dict(method='UniMatch')),
        r'odd\.pth: the checkpoint is from a run of UniMatch, but the config is for AllSpark.*--work-dir',
    ),
    'a text as weights': (
        load_from(lambda path: text(path, 'weights')),
        r'odd\.pth \(7 bytes\) cannot be read',
    ),
    'no weights': (load_from(lambda path: path), r'odd\.pth not found'),
    'weights of another network': (
        load_from(lambda path: weights(path, state_dict={'encoder.weight': torch.zeros(1, 2)})),
        r'odd\.pth has no parameter of the AllSpark\. It has keys like \[.encoder\.weight',
    ),
    'weights of other shapes': (
        load_from(lambda path: weights(path, state_dict={'decode_head.conv_seg.weight': torch.zeros(1, 2)})),
        r'odd\.pth has no parameter of the AllSpark\. It has keys like \[.decode_head',
    ),
}


def settings_of(values: dict) -> Change:
    return lambda config, folder: config.merge_from_dict(values)


CASES: dict[str, tuple[Change, str]] = {
    **{name: (settings_of(values), pattern) for name, (values, pattern) in SETTINGS.items()},
    **FILES,
    **COMMANDS,
}


@pytest.mark.parametrize('case', CASES)
def test_bad_input(case, with_validation, tmp_path, runner_of, monkeypatch, capfd):
    def step(*_, **__):
        raise SystemError('an iteration has begun')

    change, pattern = CASES[case]
    options = change(with_validation, tmp_path)
    options = list(options) if isinstance(options, list) else []
    path = text(tmp_path / 'config.py', with_validation.pretty_text)
    arguments = options if options and options[0].endswith(('.py', '.txt')) else [str(path), *options]
    monkeypatch.setattr('mmengine.optim.OptimWrapper.update_params', step)
    before = set(tmp_path.rglob('*'))
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train.main([arguments[0], '--work-dir', str(tmp_path / 'work'), *arguments[1:]])
    assert stopped.value.code == 1
    error = capfd.readouterr().err
    (line,) = (line for line in error.splitlines() if line.startswith('train: '))
    assert re.search(pattern, error[error.index(line) :], re.DOTALL), error
    assert 'Traceback' not in error
    new = {file.name for file in set(tmp_path.rglob('*')) - before}
    assert not any(name.endswith('.pth') or name == 'last_checkpoint' for name in new), new


def test_there_are_enough_cases():
    assert len(CASES) >= 60
