"""make_splits.py --reference: lists from a copy of the AllSpark or the UniMatch repository."""

import functools
import http.server
import shutil
import tarfile
import threading
from pathlib import Path

import pytest
from splits import reference as tool

from tests.helpers.configs import ROOT
from tests.helpers.split_lists import lists_below, published_folder, row, run_make_splits


def as_folder(place):
    shutil.copytree(published_folder(), place / 'AllSpark/splits')
    return place / 'AllSpark'


def as_splits(place):
    return as_folder(place) / 'splits'


def as_unpacked(place):
    return as_folder(place).parent


def as_zip(place):
    as_folder(place)
    return shutil.make_archive(place / 'AllSpark-main', 'zip', place, 'AllSpark')


def as_tar(place):
    as_folder(place)
    return shutil.make_archive(place / 'lists', 'gztar', place / 'AllSpark', 'splits')


@pytest.mark.parametrize('pack', [as_folder, as_splits, as_unpacked, as_zip, as_tar])
def test_lists_are_imported_from_a_folder_or_an_archive(published, tmp_path, make_splits, pack):
    reference = pack(tmp_path)
    for name in ('voc', 'cityscapes', 'coco'):
        status, output = make_splits(
            name, '--data-root', tmp_path / 'no', '--reference', reference, '--out', tmp_path / 'splits'
        )
        assert status == (name == 'coco'), output  # the copy for tests lacks lists of COCO
        assert 'were not checked' in output
    assert lists_below(tmp_path / 'splits') == published
    assert (
        f'error: not in {reference}' in output
        and '6 list(s) could not be made' in output
        and 'coco/1_512/unlabeled.txt' in output
    )


def test_lists_are_imported_from_an_address(published, tmp_path):
    archive = as_tar(tmp_path)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    try:
        found = tool.read_reference(f'{address}/{Path(archive).name}')
        with pytest.raises(
            OSError, match=r'could not download http\S+: HTTP Error 404.*give the path of the file'
        ):
            tool.read_reference(f'{address}/nothing.zip')
        with pytest.raises(OSError, match=r'expected a zip or tar archive.*Download it again'):
            tool.read_reference(f'{address}/AllSpark/splits/pascal/val.txt')
    finally:
        server.shutdown()
        server.server_close()
    assert found == published
    with pytest.raises(OSError, match=r'could not download .*Connection refused'):
        tool.read_reference(f'{address}/{Path(archive).name}')


@pytest.mark.parametrize('end', ['', '/', '.git'])
def test_a_repository_is_downloaded_as_an_archive(end):
    archive = 'https://github.com/xmed-lab/AllSpark/archive/refs/heads/main.zip'
    assert tool.archive_address(f'https://github.com/xmed-lab/AllSpark{end}') == archive
    assert tool.archive_address(archive) == archive


def test_an_altered_list_is_refused_and_a_missing_list_is_derived_or_reported(voc, published, tmp_path):
    reference = as_folder(tmp_path)
    altered, out = reference / 'splits/pascal/1_8/labeled.txt', tmp_path / 'splits'
    altered.write_bytes(altered.read_bytes().replace(b'2007_000032', b'2007_000033', 1))
    shutil.rmtree(reference / 'splits/pascal/1_2')
    (reference / 'splits/pascal/92/labeled.txt').unlink()
    status, output = run_make_splits('voc', '--data-root', voc, '--reference', reference, '--out', out)
    assert status == 1
    lost = {'voc/1_8/labeled.txt', 'voc/92/labeled.txt'}
    assert 'error: the list imported is not the published one: expected 1323' in output
    assert f'error: not in {reference}' in output and '\n  voc/92/labeled.txt' in output
    assert all('failed' in row(output, path)[2] for path in lost)
    assert 'by rule' in row(output, 'voc/1_2/labeled.txt')[2]
    expected = {path for path in published if path.startswith('voc/')} - lost
    assert lists_below(out) == {path: published[path] for path in expected}


def test_cityscapes_and_coco_lists_are_derived_from_others(published, tmp_path, make_splits):
    for path in published:
        if '1_2/' in path or path == 'coco/1_32/labeled.txt':
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            # a copy that git checked out on Windows
            (tmp_path / path).write_bytes(published[path].replace(b'\n', b'\r\n'))
    for name in ('cityscapes', 'coco'):
        make_splits(name, '--data-root', tmp_path, '--reference', tmp_path, '--out', tmp_path / 'splits')
    made = lists_below(tmp_path / 'splits')
    assert made == {path: published[path] for path in made}
    halves = {f'cityscapes/1_{k}/{part}labeled.txt' for k in (2, 4, 8, 16) for part in ('', 'un')}
    assert set(made) == halves | {'coco/1_32/labeled.txt', 'coco/1_512/labeled.txt'}


def test_missing_files_are_reported_and_unlabeled_images_need_no_mask(published, tmp_path, make_splits):
    root = tmp_path / 'cityscapes'
    lines = published['cityscapes/val.txt'].decode().splitlines()
    for name in ' '.join(lines[7:]).split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    status, output = make_splits(
        'cityscapes', '--data-root', root, '--reference', published_folder(), '--out', tmp_path / 's'
    )
    assert status == 0
    assert f'{2975 + 7} images of these lists are missing in {root}:\n  {lines[0].split()[0]}\n' in output
    labeled = b'\n'.join(published[f'cityscapes/{folder}/labeled.txt'] for folder in ('1_30', '1_2'))
    masks = {line.split()[1] for line in labeled.splitlines()}
    assert 1488 < len(masks) < 1588 and f'{len(masks) + 7} masks of these lists' in output
    assert 'dataset_converters/cityscapes.py' in output


def test_lists_without_a_rule_ask_for_a_reference(tmp_path, make_splits):
    for name in ('cityscapes', 'coco'):
        status, output = make_splits(name, '--data-root', tmp_path, '--out', tmp_path / 'splits')
        assert status == 1 and 'lists follow no rule: add --reference' in output
    assert not list(tmp_path.iterdir())


def test_a_reference_without_lists_is_refused(tmp_path, make_splits):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.zip').write_text('not found')
    with tarfile.open(tmp_path / 'cut.tar.gz', 'w:gz') as archive:
        archive.add(ROOT / 'LICENSE')
        archive.add(ROOT / 'setup.py')
    whole = (tmp_path / 'cut.tar.gz').read_bytes()
    (tmp_path / 'cut.tar.gz').write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ('nowhere', 'found nothing at'),
        ('empty', 'expected lists such as splits/pascal/val.txt, found none'),
        ('text.zip', 'expected a zip or tar archive, found another file'),
        ('cut.tar.gz', 'could not read'),
    ):
        status, output = make_splits('coco', '--reference', tmp_path / name, '--out', tmp_path / 'splits')
        assert status == 1 and message in output and name in output


@pytest.mark.parametrize(
    'member, path',
    [
        ('AllSpark-main/splits/pascal/1_8/labeled.txt', 'voc/1_8/labeled.txt'),
        ('AllSpark/splits/pascal/val.txt', 'voc/val.txt'),
        ('./splits/coco/val.txt', 'coco/val.txt'),
        ('coco/val.txt', 'coco/val.txt'),
        ('data/splits/voc/val.txt', 'voc/val.txt'),
        ('splits/pascal/1_3/labeled.txt', None),
        ('splits/coco/1_3/labeled.txt', None),
        ('more/scenarios/splits/coco/val.txt', None),
        ('splits/README.md', None),
    ],
)
def test_members_of_an_archive_are_recognized_as_lists(member, path):
    assert tool.list_key(member) == path
