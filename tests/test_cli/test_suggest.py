"""python -m allspark_mmseg suggest: from a work dir to a list, masks and a sheet."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from allspark_mmseg.__main__ import main
from allspark_mmseg.datasets import ImageListDataset
from allspark_mmseg.own_data.drafts import find_drafts
from allspark_mmseg.own_data.files import list_files
from allspark_mmseg.own_data.polygons import draw
from allspark_mmseg.suggestion import ranking
from allspark_mmseg.suggestion.annotation import AGREEMENT

from ..helpers.tiny_models import build_model, tiny_segmentor

NAMES = ['free', 'hole', 'crack', 'dent']
UNLABELED, LABELED = 9, 2
STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


def write_images(folder: Path) -> None:
    """Images of several sizes in two folders, one file of a name in each, and masks of the labeled ones."""
    generator = np.random.default_rng(0)
    for index in range(UNLABELED + LABELED):
        part = folder / ('pool' if index < UNLABELED else 'labeled') / f'part {index % 2}'
        part.mkdir(parents=True, exist_ok=True)
        size = (40 + 8 * (index % 3), 56)
        coarse = generator.integers(0, 256, (5, 7, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(part / f'{index // 2}.png')
    (folder / 'labeled' / 'mask.png').write_bytes((folder / 'labeled' / 'part 1' / '4.png').read_bytes())


def run_config(data: Path) -> Config:
    """Config of a semi-supervised run with a labeled and an unlabeled stream."""
    mask = 'labeled/mask.png'
    (data / 'labeled.txt').write_text(f'labeled/part 1/4.png\t{mask}\nlabeled/part 0/5.png\t{mask}\n')
    method = dict(type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor())
    streams = dict(
        labeled=dict(ann_file='labeled.txt', pipeline=[]),
        unlabeled=dict(data_prefix=dict(img_path='pool'), pipeline=[dict(type='RandomCrop', crop_size=8)]),
    )
    return Config(
        dict(
            model=method | dict(teacher=dict(momentum=0.2), predict_on='teacher'),
            train_dataloader=dict(
                dataset=dict(type='allspark_mmseg.SemiDataset', data_root=str(data), **streams)
            ),
            test_dataloader=dict(dataset=dict(pipeline=STEPS)),
        )
    )


def save(model: torch.nn.Module, config: Config, path: Path) -> None:
    meta = dict(
        cfg=config.pretty_text, dataset_meta=dict(classes=NAMES, palette=np.eye(4, 3, dtype=int) * 255)
    )
    meta['dataset_meta']['palette'] = meta['dataset_meta']['palette'].tolist()
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory) -> Path:
    """A work dir with iter_2.pth, whose teacher differs from its student."""
    data, folder = tmp_path_factory.mktemp('data'), tmp_path_factory.mktemp('work_dir')
    init_default_scope('mmseg')  # this fixture runs before the one of conftest.py
    write_images(data)
    config = run_config(data)
    torch.manual_seed(0)
    model = build_model(config.model)
    model.teacher.update_parameters(model.student)
    with torch.no_grad():
        for value in model.student.decode_head.parameters():
            value.add_(0.3 * torch.randn_like(value))
    save(model, config, folder / 'iter_2.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_2.pth'))
    return folder


def read_table(out: Path) -> list[dict]:
    with (out / 'scores.tsv').open() as file:
        return list(csv.DictReader(file, delimiter='\t'))


def test_a_work_dir_is_enough(work_dir, capsys):
    assert main(['suggest', str(work_dir), '--num', '3']) == 0
    printed, out = capsys.readouterr().out, work_dir / 'suggest'
    assert 'Uncertainty and masks: teacher of iter_2.pth.' in printed
    assert f'{UNLABELED} images to rank, {LABELED} labeled images.' in printed
    data = Path(
        Config.fromstring(
            torch.load(work_dir / 'iter_2.pth')['meta']['cfg'], '.py'
        ).train_dataloader.dataset.data_root
    )

    listed = ImageListDataset(
        ann_file=str(out / 'suggest.txt'), data_root=str(data), labeled=False, pipeline=[]
    )
    images = [Path(listed.get_data_info(index)['img_path']) for index in range(3)]
    names = [image.relative_to(data).as_posix() for image in images]
    table = read_table(out)
    assert len(table) == UNLABELED and [row['image'] for row in table[:3]] == names
    assert [row['rank'] for row in table] == ['1', '2', '3', *[''] * (UNLABELED - 3)]
    assert all(0 < float(row['uncertainty']) <= 1 and float(row['disagreement']) > 0 for row in table)
    assert all(row['reason'] for row in table[:3])

    coco = json.loads((out / 'coco.json').read_text())
    assert [entry['file_name'] for entry in coco['images']] == names
    for image, name in zip(images, names, strict=True):
        mask = np.asarray(Image.open((out / 'masks' / name).with_suffix('.png')))
        assert mask.shape == Image.open(image).size[::-1] and mask.max() < len(NAMES)
        copy = out / 'labelme' / name
        content = json.loads(copy.with_suffix('.json').read_text())
        assert copy.read_bytes() == image.read_bytes() and content['imagePath'] == copy.name
        assert (draw_labelme(content) == mask).mean() >= AGREEMENT
    with Image.open(out / 'suggest.png') as sheet:
        assert sheet.width > 1000 and sheet.height > 3 * 200


def draw_labelme(content: dict) -> np.ndarray:
    """Draw a labelme file as ``new --add`` reads it."""
    shapes = [(shape['label'], shape['shape_type'], shape['points']) for shape in content['shapes']]
    return draw(shapes, (content['imageWidth'], content['imageHeight']), NAMES)


def test_an_interrupted_ranking_goes_on_and_keeps_corrected_masks(work_dir, tmp_path, monkeypatch, capsys):
    score, calls = ranking.score_image, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return score(*arguments)

    arguments = ['suggest', str(work_dir), '--num', '2', '--out', str(tmp_path)]
    monkeypatch.setattr(ranking, 'score_image', interrupted)
    assert main(arguments) == 130
    assert not (tmp_path / 'suggest.txt').exists()
    assert main(arguments) == 0
    assert len(calls) == 5 + UNLABELED + LABELED - 4
    first = (tmp_path / 'scores.tsv').read_text()
    (corrected,) = list((tmp_path / 'labelme').rglob('*.json'))[:1]
    corrected.write_text('corrected')
    assert main(arguments) == 0
    assert len(calls) == 5 + UNLABELED + LABELED - 4
    assert (tmp_path / 'scores.tsv').read_text() == first and corrected.read_text() == 'corrected'
    assert '4 files of masks exist and were not changed' in capsys.readouterr().out
    for folder in (tmp_path, tmp_path / 'labelme', tmp_path / 'masks'):
        names = [path for path in list_files(folder) if path.endswith(('.json', '.png'))]
        drafts = {folder / name for name in find_drafts(folder, names)}
        everything = {*tmp_path.glob('labelme/**/*.json'), *tmp_path.glob('masks/**/*.png')}
        everything.add(tmp_path / 'coco.json')
        assert drafts == {path for path in everything if path.is_relative_to(folder)} - {corrected}


def test_a_folder_of_images_and_a_broken_one(work_dir, tmp_path, capsys):
    folder = tmp_path / 'more images'
    folder.mkdir()
    for index in range(3):
        Image.new('RGB', (50, 40), (80 * index, 0, 0)).save(folder / f'{index}.jpg')
    (folder / 'page.jpg').write_text('<html>')
    arguments = ['suggest', str(work_dir), '--images', str(folder), '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--strategy', 'random', '--seed', '1']) == 0
    printed = capsys.readouterr().out
    assert '1 images were skipped' in printed and 'page.jpg is a web page (HTML), not an image' in printed
    chosen = (tmp_path / 'out' / 'suggest.txt').read_text().split()
    assert sorted(chosen) == ['0.jpg', '1.jpg', '2.jpg']


def test_a_plain_checkpoint_is_compared_with_the_other_phase(work_dir, tmp_path, capsys):
    config = Config(dict(model=tiny_segmentor(), test_dataloader=dict(dataset=dict(pipeline=STEPS))))
    for seed, name in enumerate(['supervised.pth', 'FixMatch.pth']):
        torch.manual_seed(seed)
        save(build_model(config.model), config, tmp_path / name)
    arguments = ['suggest', str(tmp_path / 'FixMatch.pth'), '--num', '1']
    assert main(arguments) == 2
    assert 'no config with train_dataloader' in capsys.readouterr().err
    run = Config.fromstring(torch.load(work_dir / 'iter_2.pth')['meta']['cfg'], '.py')
    run.dump(tmp_path / 'run.py')
    assert main([*arguments, '--strategy', 'disagreement']) == 2
    printed = capsys.readouterr()
    assert 'There is no second network' in printed.out and 'needs two networks, found one' in printed.err
    scores = [dict(phase=phase) for phase in ('supervised', 'FixMatch')]
    (tmp_path / 'summary.json').write_text(json.dumps(dict(scores=scores)))
    assert main([*arguments, '--strategy', 'disagreement']) == 0
    assert 'Disagreement: between FixMatch.pth and supervised.pth.' in capsys.readouterr().out
    assert float(read_table(tmp_path / 'suggest')[0]['disagreement']) > 0


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['missing'], 'missing does not exist'),
        (['{}', '--images', 'nowhere'], 'nowhere does not exist'),
    ],
)
def test_errors_are_one_sentence(work_dir, arguments, message, capsys):
    assert main(['suggest', *(text.format(work_dir) for text in arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('suggest: ') and message in error and '\n' not in error


def test_the_number_of_images_is_positive(capsys):
    with pytest.raises(SystemExit):
        main(['suggest', 'x', '--num', '0'])
    assert "'0' found, expected an integer of at least 1" in capsys.readouterr().err
