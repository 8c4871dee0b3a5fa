"""Files that vanish or break while the training runs, and a worker that the system kills."""

import multiprocessing
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

from allspark_mmseg.cli.errors import one_sentence
from allspark_mmseg.datasets.image_checks import check_images
from allspark_mmseg.datasets.unreadable import CheckedPipeline, UnreadableImageError

from .conftest import log_lines


class Fault(Hook):
    """Calls a function after the first iteration."""

    def __init__(self, act) -> None:
        self.act = act

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 0:
            self.act()


@pytest.fixture
def faulty(config, data_root, tmp_path, monkeypatch) -> Config:
    """Six epochs of two iterations, with a worker, on a copy of the data."""
    # seconds that PyTorch waits for a worker at the end of a run; 5 by default
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.2)
    for path in data_root.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for stream in ('labeled', 'unlabeled'):
        config.train_dataloader.dataset[stream].data_root = str(tmp_path)
    config.train_dataloader.num_workers = 1
    config.train_cfg.max_epochs = 6
    config.default_hooks.unreadable_images = dict(type='allspark_mmseg.UnreadableImagesHook')
    config.default_hooks.exact_resume = dict(type='allspark_mmseg.ExactResumeHook')
    return config


def train(runner_of, config: Config, act):
    runner = runner_of(config)
    runner.register_hook(Fault(act))
    with one_sentence('train'):
        runner.train()
    return runner


def break_inside(path: Path) -> None:
    """Change bytes in the middle of a PNG; its header and its end stay."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)


FAULTS = {
    'vanished': (lambda path: path.unlink(), 'cannot be read .*No such file'),
    'broken': (break_inside, 'is truncated or damaged'),
    'replaced': (lambda path: path.write_text('<!doctype html>'), 'is a web page'),
}


@pytest.mark.parametrize(
    ('name', 'fault'), [('3.png', 'broken'), ('3.png', 'replaced'), ('0_mask.png', 'vanished')]
)
def test_the_message_names_the_file(faulty, runner_of, tmp_path, capfd, name, fault):
    act, reason = FAULTS[fault]
    with pytest.raises(SystemExit, match='1'):
        train(runner_of, faulty, lambda: act(tmp_path / name))
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith('train: '))
    assert f'train_dataloader: {tmp_path / name} ' in line and '--resume continues' in line
    assert 'max_share' in line and 'Traceback' not in line
    assert re.search(reason, line), line


def test_a_share_of_the_images_is_skipped_and_counted(faulty, runner_of, tmp_path):
    faulty.default_hooks.unreadable_images.max_share = 0.13  # one of eight
    runner = train(runner_of, faulty, (tmp_path / '3.png').unlink)
    assert runner.iter == 12
    (line,) = (line for line in log_lines(runner) if 'is skipped' in line)
    assert f'{tmp_path}/3.png cannot be read' in line and '1 of 8 training images' in line


def test_more_than_the_share_ends_the_run(faulty, runner_of, tmp_path, capfd):
    faulty.default_hooks.unreadable_images.max_share = 0.13

    def act():
        for name in ('3.png', '4.png'):
            (tmp_path / name).unlink()

    with pytest.raises(SystemExit):
        train(runner_of, faulty, act)
    assert '2 of 8 training images cannot be read, more than the share 0.13' in capfd.readouterr().err


def test_a_disk_that_is_away_ends_the_run_at_once(faulty, runner_of, tmp_path, capfd):
    faulty.default_hooks.unreadable_images.max_share = 0.9
    with pytest.raises(SystemExit):
        train(runner_of, faulty, lambda: [path.unlink() for path in tmp_path.glob('*.png')])
    assert '11 images in a row are unreadable; check the disk' in capfd.readouterr().err


def test_a_worker_that_the_system_kills(faulty, runner_of, capfd):
    def act():
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(SystemExit):
        train(runner_of, faulty, act)
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith('train: '))
    assert 'a worker of the data loader was killed' in line and '--resume continues' in line


def test_an_error_of_a_transform_keeps_its_traceback(data_root):
    def fail(results):
        raise ValueError('a fault of the transform')

    pipeline = CheckedPipeline(fail, 'train_dataloader', skip=True)
    with pytest.raises(ValueError, match='a fault of the transform'):
        pipeline({'img_path': str(data_root / '0.png')})


@pytest.fixture(scope='module')
def ten_thousand(tmp_path_factory) -> Path:
    """10 000 images, which are links to two files."""
    folder = tmp_path_factory.mktemp('many')
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for suffix in ('jpg', 'png'):
        Image.fromarray(pixels).save(folder / f'{suffix}_0000.{suffix}')
        for index in range(1, 5000):
            os.link(folder / f'{suffix}_0000.{suffix}', folder / f'{suffix}_{index:04}.{suffix}')
    return folder


def data_set(folder: Path):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    metainfo = dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]])
    return DATASETS.build(
        dict(
            type='allspark_mmseg.ImageListDataset',
            data_prefix=dict(img_path=str(folder)),
            labeled=False,
            pipeline=pipeline,
            metainfo=metainfo,
        )
    )


def test_one_corrupt_image_among_10000(ten_thousand):
    """A JPEG without its end is found before the training, damage inside a PNG when it is loaded."""
    whole = (ten_thousand / 'jpg_2500.jpg').read_bytes()
    (ten_thousand / 'jpg_2500.jpg').unlink()
    (ten_thousand / 'jpg_2500.jpg').write_bytes(whole[:-50])
    with pytest.raises(ValueError, match=r'^train_dataloader: 1 image\(s\) .*jpg_2500\.jpg is truncated'):
        check_images([('train_dataloader', data_set(ten_thousand))])
    (ten_thousand / 'jpg_2500.jpg').write_bytes(whole)
    damaged = ten_thousand / 'png_4000.png'
    content = (ten_thousand / 'png_0000.png').read_bytes()
    damaged.unlink()
    damaged.write_bytes(content)
    break_inside(damaged)
    dataset = data_set(ten_thousand)
    assert len(dataset) == 10_000
    check_images([('train_dataloader', dataset)])
    dataset.pipeline = CheckedPipeline(dataset.pipeline, 'train_dataloader', skip=False)
    index = [dataset.get_data_info(i)['img_path'] for i in range(10_000)].index(str(damaged))
    loader = DataLoader(dataset, sampler=[0, index], num_workers=1, batch_size=1, collate_fn=list)
    with pytest.raises(UnreadableImageError) as error:
        list(loader)
    assert str(error.value).startswith(f'train_dataloader: {damaged} is truncated or damaged')
