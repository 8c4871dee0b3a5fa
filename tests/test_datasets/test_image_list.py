"""ImageListDataset and its lists: all forms and all errors."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allspark_mmseg.datasets import ImageListDataset, format_list_line, parse_list_line
from allspark_mmseg.registry import DATASETS

META = {'classes': ('void', 'thing'), 'palette': [[0, 0, 0], [255, 0, 0]]}


def write_image(path, shape=(6, 8, 3), value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, value, np.uint8))


@pytest.fixture
def root(tmp_path):
    for name in ('b/2.jpg', 'a/1.JPG', 'a/3.png'):
        write_image(tmp_path / 'images' / name)
    for name in ('b/2.png', 'a/1.png', 'a/3.png'):
        write_image(tmp_path / 'masks' / name, shape=(6, 8), value=1)
    (tmp_path / 'images' / 'notes.txt').write_text('no image')
    return tmp_path


def write_list(root, *lines):
    (root / 'split.txt').write_text('\n'.join(lines))
    return 'split.txt'


def build(root, **kwargs):
    return ImageListDataset(data_root=str(root), metainfo=META, **kwargs)


def infos(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


PREFIX = {'img_path': 'images', 'seg_map_path': 'masks'}


def test_two_columns_in_the_order_of_the_list(root):
    ann_file = write_list(root, 'images/b/2.jpg masks/b/2.png', '', ' images/a/1.JPG\tmasks/a/1.png ', '')
    first, second = infos(build(root, ann_file=ann_file))
    assert first == {
        'img_path': str(root / 'images/b/2.jpg'),
        'seg_map_path': str(root / 'masks/b/2.png'),
        'label_map': None,
        'reduce_zero_label': False,
        'seg_fields': [],
        'sample_idx': 0,
    }
    assert second['img_path'].endswith('1.JPG') and second['seg_map_path'].endswith('a/1.png')


def test_absolute_paths_and_an_absolute_list_need_no_root(root):
    write_list(root, f'{root}/images/a/3.png {root}/masks/a/3.png')
    dataset = ImageListDataset(ann_file=str(root / 'split.txt'), metainfo=META)
    assert infos(dataset)[0]['seg_map_path'] == str(root / 'masks/a/3.png')


def test_one_column_finds_masks_by_convention(root):
    ann_file = write_list(root, 'images/b/2.jpg', 'images/a/1.JPG')
    dataset = build(root, ann_file=ann_file, data_prefix=PREFIX)
    assert [info['seg_map_path'] for info in infos(dataset)] == [
        str(root / 'masks/b/2.png'),
        str(root / 'masks/a/1.png'),
    ]


def test_suffixes_are_replaced_as_in_cityscapes(root):
    write_image(root / 'images/town/x_leftImg8bit.png')
    write_image(root / 'masks/town/x_gtFine_labelTrainIds.png', shape=(6, 8))
    dataset = build(
        root,
        data_prefix=PREFIX,
        img_suffix='_leftImg8bit.png',
        seg_map_suffix='_gtFine_labelTrainIds.png',
    )
    assert [info['seg_map_path'] for info in infos(dataset)] == [
        str(root / 'masks/town/x_gtFine_labelTrainIds.png')
    ]


def test_a_bare_folder_is_sorted_recursive_and_ignores_other_files(root):
    dataset = build(root, labeled=False, data_prefix={'img_path': 'images'})
    assert [info['img_path'] for info in infos(dataset)] == [
        str(root / 'images' / name) for name in ('a/1.JPG', 'a/3.png', 'b/2.jpg')
    ]


def test_an_unlabeled_dataset_never_asks_for_masks(root):
    ann_file = write_list(root, 'images/b/2.jpg masks/is/not/there.png', 'images/a/1.JPG')
    dataset = build(root, ann_file=ann_file, labeled=False, data_prefix=PREFIX)
    assert len(dataset) == 2
    assert not any('seg_map_path' in info for info in infos(dataset))


def test_the_stock_pipeline_reads_image_and_mask(root):
    dataset = build(
        root,
        ann_file=write_list(root, 'images/b/2.jpg masks/b/2.png'),
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations'}],
    )
    assert dataset[0]['img'].shape == (6, 8, 3)
    assert (dataset[0]['gt_seg_map'] == 1).all()


@pytest.mark.parametrize(('indices', 'expected'), [(2, [0, 1]), (-1, [2]), ([2, 0], [2, 0])])
def test_indices_take_a_part(root, indices, expected):
    whole = build(root, labeled=False, data_prefix={'img_path': 'images'})
    part = build(root, labeled=False, data_prefix={'img_path': 'images'}, indices=indices)
    assert [info['img_path'] for info in infos(part)] == [infos(whole)[i]['img_path'] for i in expected]


def test_built_by_name_with_its_classes(root):
    dataset = DATASETS.build(
        {
            'type': 'allspark_mmseg.ImageListDataset',
            'data_root': str(root),
            'data_prefix': PREFIX,
            'metainfo': META,
            'test_mode': True,
        }
    )
    assert dataset.metainfo['classes'] == META['classes'] and dataset.labeled


def test_a_pipeline_that_drops_every_image_ends_in_an_error(root):
    dataset = build(
        root, labeled=False, data_prefix={'img_path': 'images'}, pipeline=[lambda _: None], max_refetch=3
    )
    with pytest.raises(Exception, match='Cannot find valid image after 3'):
        dataset[0]


def test_a_missing_root(root):
    with pytest.raises(FileNotFoundError, match=r'data_root: expected a folder.*nowhere.*set data_root'):
        build(root / 'nowhere', ann_file='split.txt')


def test_a_missing_list(root):
    with pytest.raises(
        FileNotFoundError, match=r'ann_file: expected a list of images, found no file at.*nothing\.txt'
    ):
        build(root, ann_file='nothing.txt')


def test_a_missing_image_folder(root):
    with pytest.raises(FileNotFoundError, match=r"data_prefix\['img_path'\]: expected a folder.*pictures"):
        build(root, labeled=False, data_prefix={'img_path': 'pictures'})


def test_a_line_with_three_columns_is_named(root):
    ann_file = write_list(root, 'images/b/2.jpg masks/b/2.png', '', 'image.jpg mask.png other.png')
    with pytest.raises(ValueError, match=r"split\.txt:3: expected 'image' or 'image mask', found 3 columns"):
        build(root, ann_file=ann_file)


def test_missing_images_are_counted_and_five_are_named(root):
    ann_file = write_list(root, 'images/b/2.jpg', *(f'images/{i}.jpg' for i in range(7)))
    with pytest.raises(FileNotFoundError) as error:
        build(root, ann_file=ann_file, labeled=False)
    message = str(error.value)
    assert 'split.txt' in message and 'expected 8 images' in message and '7 of them' in message
    assert message.count('/images/') == 5 and '/images/4.jpg' in message and 'and 2 more' in message


def test_missing_masks_are_named(root):
    ann_file = write_list(root, 'images/b/2.jpg masks/b/2.png', 'images/a/1.JPG masks/gone.png')
    with pytest.raises(
        FileNotFoundError, match=r'split\.txt.*expected 2 masks.*1 of them[^$]*masks/gone\.png'
    ):
        build(root, ann_file=ann_file)


@pytest.mark.parametrize('lines', [[], ['', '  ']])
def test_an_empty_list(root, lines):
    with pytest.raises(ValueError, match=r'split\.txt.*at least one image, found none'):
        build(root, ann_file=write_list(root, *lines))


def test_a_folder_without_such_images(root):
    with pytest.raises(ValueError, match=r"img_path.*at least one image, found none.*img_suffix='\.bmp'"):
        build(root, labeled=False, data_prefix={'img_path': 'images'}, img_suffix='.bmp')


def test_a_labeled_list_that_cannot_tell_its_masks(root):
    with pytest.raises(ValueError, match=r'labeled=True.*second column.*seg_map_path.*labeled=False'):
        build(root, ann_file=write_list(root, 'images/b/2.jpg'))


def test_an_image_outside_the_prefix_has_no_conventional_mask(root):
    write_image(root / 'elsewhere/4.jpg')
    with pytest.raises(ValueError, match=r'the path of the mask of .*elsewhere/4\.jpg. is unknown'):
        build(root, ann_file=write_list(root, 'elsewhere/4.jpg'), data_prefix=PREFIX)


def test_images_of_no_bytes_are_named(root):
    (root / 'images' / 'b' / '2.jpg').write_bytes(b'')
    with pytest.raises(FileNotFoundError, match=r'found that 1 of them are empty files:\n +\S+/b/2\.jpg'):
        build(root, labeled=False, data_prefix={'img_path': 'images'})


def test_a_list_from_windows(root):
    (root / 'split.txt').write_bytes('\ufeffimages/b/2.jpg\r\nimages/a/1.JPG\r\n'.encode())
    dataset = build(root, ann_file='split.txt', labeled=False)
    assert [info['img_path'] for info in infos(dataset)] == [
        f'{root}/images/{n}' for n in ('b/2.jpg', 'a/1.JPG')
    ]


def test_only_line_breaks_end_a_line(root):
    names = ['form\ffeed.jpg', 'next\x85line.jpg', 'line\u2028separator.jpg']
    for name in names:
        write_image(root / 'odd' / name)
    text = '\r'.join(f'odd/{name}' for name in names)
    (root / 'split.txt').write_bytes(text.encode())
    dataset = build(root, ann_file='split.txt', labeled=False)
    assert [info['img_path'] for info in infos(dataset)] == [f'{root}/odd/{name}' for name in names]


@pytest.mark.parametrize(
    ('line', 'columns'),
    [
        ('\ta/1.jpg b/1.png', ('a/1.jpg', 'b/1.png')),
        (' \ta/1.jpg\tb/1.png', ('a/1.jpg', 'b/1.png')),
        ('a/1.jpg b/1.png', ('a/1.jpg', 'b/1.png')),
        ('JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png\n',
         ('JPEGImages/2007_000032.jpg', 'SegmentationClass/2007_000032.png')),
        ('leftImg8bit/train/aachen/x_leftImg8bit.png gtFine/train/aachen/x_gtFine_labelTrainIds.png',
         ('leftImg8bit/train/aachen/x_leftImg8bit.png', 'gtFine/train/aachen/x_gtFine_labelTrainIds.png')),
        ('  a/1.jpg    b/1.png  ', ('a/1.jpg', 'b/1.png')),
        ('a/1.JPG', ('a/1.JPG', None)),
        ('a/1.jpg\tb/1.png', ('a/1.jpg', 'b/1.png')),
        ('my image.jpg\tmy mask.png\r\n', ('my image.jpg', 'my mask.png')),
        ('my image.jpg my mask.png', ('my image.jpg', 'my mask.png')),
        ('my image.jpg', ('my image.jpg', None)),
        ('image 1\t', ('image 1', None)),
        ('image_1 mask_1', ('image_1', 'mask_1')),
        ('image_1\tmask_1.png', ('image_1', 'mask_1.png')),
    ],
)  # fmt: skip
def test_forms_of_a_line(line, columns):
    assert parse_list_line(line) == columns


stems = st.text(st.sampled_from('aé.-/_ 1'), min_size=1).filter(lambda stem: stem == stem.strip())
paths = st.builds(str.__add__, stems, st.sampled_from(['', '.jpg', '.png', '.JPEG', '.npy']))


@given(paths, st.none() | paths)
def test_parse_is_the_inverse_of_format(image, mask):
    assert parse_list_line(format_list_line(image, mask)) == (image, mask)


def test_published_lines_are_written_with_a_space():
    assert format_list_line('a/1.jpg', 'b/1.png') == 'a/1.jpg b/1.png'
    assert format_list_line('a/1.jpg') == 'a/1.jpg'


def test_a_list_in_the_working_directory(root, tmp_path, monkeypatch):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'mine.txt').write_text('images/b/2.jpg')
    monkeypatch.chdir(tmp_path / 'work')
    assert len(build(root, ann_file='mine.txt', labeled=False)) == 1
    (root / 'mine.txt').write_text('images/b/2.jpg\nimages/a/3.png')
    assert len(build(root, ann_file='mine.txt', labeled=False)) == 2
