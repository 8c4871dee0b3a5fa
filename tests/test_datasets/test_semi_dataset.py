"""SemiDataset: its streams, defaults and errors."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS

from allspark_mmseg.datasets import ImageListDataset, SemiDataset

META = {'classes': ('void', 'thing'), 'palette': [[0, 0, 0], [255, 0, 0]]}
EXTRA = {'ann_file': '', 'data_prefix': {'img_path': 'extra'}}  # a stream that is a folder


@pytest.fixture
def root(tmp_path):
    """Eight images with masks, three others, and two splits: `few` (2 labeled of 8) and `many` (5 of 8)."""
    for folder in ('images', 'masks', 'extra', 'splits/few', 'splits/many'):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(8):
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.jpg'), np.full((6, 8, 3), i, np.uint8))
        cv2.imwrite(str(tmp_path / 'masks' / f'{i}.png'), np.full((6, 8), 1, np.uint8))
    for i in range(3):
        cv2.imwrite(str(tmp_path / 'extra' / f'{i}.jpg'), np.full((6, 8, 3), 9, np.uint8))
    lines = [f'images/{i}.jpg masks/{i}.png' for i in range(8)]
    for split, count in (('few', 2), ('many', 5)):
        (tmp_path / 'splits' / split / 'labeled.txt').write_text('\n'.join(lines[:count]))
        (tmp_path / 'splits' / split / 'unlabeled.txt').write_text('\n'.join(lines[count:]))
    return tmp_path


def config(root, **overrides) -> dict:
    defaults = {
        'type': 'allspark_mmseg.SemiDataset',
        'data_root': str(root),
        'split': 'splits/few',
        'metainfo': META,
        'labeled': {},
        'unlabeled': {},
    }
    return defaults | overrides


def build(root, **overrides) -> SemiDataset:
    return DATASETS.build(config(root, **overrides))


def names(dataset, stream: str) -> list[str]:
    paths = [dataset.get_data_info(index)['img_path'] for index in dataset.streams[stream]]
    return ['/'.join(path.split('/')[-2:]) for path in paths]


def images(*numbers: int, folder: str = 'images') -> list[str]:
    return [f'{folder}/{number}.jpg' for number in numbers]


def test_a_split_folder_has_both_lists(root):
    dataset = build(root)
    assert len(dataset) == 8
    assert dataset.streams == {'labeled': range(2), 'unlabeled': range(2, 8)}
    assert names(dataset, 'labeled') == images(0, 1)
    assert names(dataset, 'unlabeled') == images(2, 3, 4, 5, 6, 7)
    infos = [dataset.get_data_info(index) for index in range(8)]
    assert [index for index, info in enumerate(infos) if 'seg_map_path' in info] == [0, 1]


def test_each_stream_has_its_pipeline(root):
    load = {'type': 'LoadImageFromFile'}
    dataset = build(
        root,
        labeled={'pipeline': [load, {'type': 'mmseg.LoadAnnotations'}]},
        unlabeled={'pipeline': [load, {'type': 'allspark_mmseg.LoadEmptyAnnotations'}]},
    )
    assert (dataset[0]['gt_seg_map'] == 1).all()
    assert (dataset[7]['gt_seg_map'] == 0).all() and abs(dataset[7]['img'].mean() - 7) < 1


def test_a_child_config_overrides_the_split(root):
    cfg = Config({'train_dataloader': {'dataset': config(root)}})
    cfg.merge_from_dict({'train_dataloader.dataset.split': 'splits/many'})
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.streams == {'labeled': range(5), 'unlabeled': range(5, 8)}


def test_a_split_is_below_data_root_or_the_working_directory(root, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    monkeypatch.chdir(elsewhere)
    assert names(build(root, split=str(root / 'splits' / 'few')), 'labeled') == images(0, 1)
    for folder in ('splits/few', 'mine'):
        (elsewhere / folder).mkdir(parents=True)
        (elsewhere / folder / 'labeled.txt').write_text('images/6.jpg masks/6.png')
        (elsewhere / folder / 'unlabeled.txt').write_text('images/7.jpg')
    assert names(build(root, split='splits/few'), 'labeled') == images(0, 1)
    assert names(build(root, split='mine'), 'labeled') == images(6)


def test_a_stream_with_its_own_list(root):
    (root / 'mine.txt').write_text('images/7.jpg')
    dataset = build(root, unlabeled={'ann_file': 'mine.txt'})
    assert names(dataset, 'labeled') == images(0, 1)
    assert names(dataset, 'unlabeled') == images(7)


def test_a_stream_with_its_own_folder(root):
    expected = images(0, 1, 2, folder='extra')
    assert names(build(root, unlabeled=EXTRA), 'unlabeled') == expected
    labeled = {'ann_file': 'splits/few/labeled.txt'}
    without_split = build(root, split=None, labeled=labeled, unlabeled={'data_prefix': EXTRA['data_prefix']})
    assert names(without_split, 'unlabeled') == expected


def test_a_stream_with_its_own_root(root, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    cv2.imwrite(str(other / 'photo.jpg'), np.zeros((6, 8, 3), np.uint8))
    dataset = build(root, unlabeled={'data_root': str(other), 'ann_file': ''})
    assert dataset.get_data_info(2)['img_path'] == str(other / 'photo.jpg')


def test_a_stream_of_a_stock_data_set(root):
    stock = {
        'type': 'BaseSegDataset',
        'data_root': str(root),
        'data_prefix': {'img_path': 'images', 'seg_map_path': 'masks'},
        'metainfo': META,
        'indices': [5, 6, 7],
        'pipeline': [],
    }
    dataset = build(root, unlabeled=stock)
    assert [type(part).__name__ for part in dataset.datasets] == ['ImageListDataset', 'BaseSegDataset']
    assert names(dataset, 'unlabeled') == images(5, 6, 7)


@pytest.mark.parametrize('stream', ['labeled', 'unlabeled'])
def test_several_sources_of_a_stream(root, stream):
    dataset = build(root, **{stream: [{'indices': [1]}, {'indices': [0]}]})
    assert names(dataset, stream) == (images(1, 0) if stream == 'labeled' else images(3, 2))
    assert len(dataset) == (8 if stream == 'labeled' else 4)
    assert dataset.labeled.metainfo['classes'] == META['classes']


def test_unlabeled_images_of_a_list_and_of_a_folder(root):
    dataset = build(root, unlabeled=[{}, EXTRA])
    assert names(dataset, 'unlabeled') == images(2, 3, 4, 5, 6, 7) + images(0, 1, 2, folder='extra')


@pytest.mark.parametrize('unlabeled', [None, []])
def test_without_unlabeled_images(root, unlabeled):
    dataset = build(root, unlabeled=unlabeled)
    assert dataset.streams == {'labeled': range(2)} and len(dataset) == 2


def test_metainfo_is_that_of_the_labeled_stream(root):
    other = {'classes': ('a', 'b', 'c'), 'palette': [[0, 0, 0]] * 3}
    assert build(root, unlabeled={'metainfo': other}).metainfo['classes'] == META['classes']
    assert build(root, labeled={'metainfo': other}).metainfo['classes'] == other['classes']
    with pytest.raises(ValueError, match='meta information'):
        build(root, labeled=[{}, {'metainfo': other}])


def test_an_overlap_is_refused_or_allowed(root):
    (root / 'link').symlink_to(root / 'images')
    (root / 'file.jpg').symlink_to(root / 'images' / '1.jpg')
    lines = ['link/../link/0.jpg', 'file.jpg', 'images/2.jpg']
    (root / 'splits' / 'few' / 'unlabeled.txt').write_text('\n'.join(lines))
    with pytest.raises(ValueError, match='SemiDataset: 2 of 2 labeled images are also unlabeled') as error:
        build(root)
    assert f'{root}/images/0.jpg' in str(error.value) and f'{root}/images/1.jpg' in str(error.value)
    assert 'allow_overlap=True' in str(error.value)
    assert len(build(root, allow_overlap=True)) == 5


def test_an_overlap_names_five_images(root):
    both = {'ann_file': '', 'data_prefix': {'img_path': 'images', 'seg_map_path': 'masks'}}
    with pytest.raises(ValueError, match='8 of 8 labeled images') as error:
        build(root, labeled=both, unlabeled=both)
    assert str(error.value).count('.jpg') == 5 and 'and 3 more' in str(error.value)


def test_files_of_the_same_name_in_two_folders_do_not_overlap(root):
    assert len(build(root, unlabeled=EXTRA)) == 5


@pytest.mark.parametrize(
    ('overrides', 'error', 'message'),
    [
        ({'split': 'splits/few/labeled.txt'}, FileNotFoundError,
         r"split is 'splits/few/labeled\.txt', which is a file.*labeled=dict\(ann_file="),
        ({'split': 'splits/none'}, FileNotFoundError, r'ann_file: expected a list.*splits/none/labeled\.txt'),
        ({'split': None}, ValueError,
         r'a source of the stream labeled has no images.*labeled=dict\(data_prefix=dict\(img_path='),
        ({'split': None, 'labeled': {'ann_file': 'splits/few/labeled.txt'}}, ValueError,
         r'a source of the stream unlabeled has no images.*unlabeled\.txt'),
        ({'labeled': 'images'}, TypeError, 'a source of the stream labeled is a str, expected a dict'),
        ({'unlabeled': ['images']}, TypeError, 'a source of the stream unlabeled is a str, expected a dict'),
        ({'labeled': []}, ValueError, r'SemiDataset: labeled is \[\], expected at least one source'),
        ({'data_root': 'nowhere', 'split': None, 'labeled': {'ann_file': 'x.txt'}}, FileNotFoundError,
         "data_root: expected a folder, found none at 'nowhere'"),
    ],
)  # fmt: skip
def test_errors(root, overrides, error, message):
    with pytest.raises(error, match=message):
        build(root, **overrides)


def test_a_wrapper_of_data_sets_is_refused(root):
    source = {
        'type': 'allspark_mmseg.ImageListDataset',
        'data_root': str(root),
        'ann_file': 'splits/few/labeled.txt',
        'metainfo': META,
    }
    assert isinstance(build(root, labeled=source).labeled, ImageListDataset)
    with pytest.raises(TypeError, match=r'labeled is a ConcatDataset.*labeled=\[dict'):
        build(root, labeled={'type': 'ConcatDataset', 'datasets': [source]})


def test_a_split_that_no_stream_reads_is_reported(root, monkeypatch):
    messages = []
    monkeypatch.setattr(
        'allspark_mmseg.datasets.semi_dataset.print_log', lambda message, **_: messages.append(message)
    )
    build(root)
    assert not messages
    own = {'ann_file': 'splits/few/labeled.txt'}
    build(root, split='splits/nowhere', labeled=own, unlabeled={'ann_file': 'splits/few/unlabeled.txt'})
    assert len(messages) == 1 and "split is 'splits/nowhere', but no stream reads it" in messages[0]
