"""Tar shards on a disk and behind a web server: the same images, in the same order, as files."""

import io
import re
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine import fileio
from torch.utils.data import DataLoader

from allspark_mmseg.__main__ import main
from allspark_mmseg.datasets import DualStreamSampler, SemiDataset, TarBackend
from allspark_mmseg.datasets.image_headers import read_header
from allspark_mmseg.datasets.shards import expand_ranges, list_images

META = {'classes': ('void', 'thing'), 'palette': [[0, 0, 0], [255, 0, 0]]}
PIPELINE = [{'type': 'LoadImageFromFile'}, {'type': 'RandomCrop', 'crop_size': (4, 4)}]


def write_shard(path, members):
    with tarfile.open(path, 'w') as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two shards of five images each, the same images as files, and a labeled image."""
    folder = tmp_path_factory.mktemp('data')
    (folder / 'pool').mkdir()
    rng = np.random.default_rng(0)
    contents = [
        cv2.imencode('.png', rng.integers(0, 256, (9, 9, 3), np.uint8))[1].tobytes() for _ in range(11)
    ]
    for shard in range(2):
        numbers = range(5 * shard, 5 * shard + 5)
        images = {f'a b/{number}.png': contents[number] for number in numbers}
        write_shard(folder / 'pool' / f'{shard:02}.tar', images | {'a b/4.json': b'{}'})
        for number in numbers:
            (folder / f'{number}.png').write_bytes(contents[number])
    (folder / 'labeled.png').write_bytes(contents[10])
    (folder / 'labeled.txt').write_text('labeled.png labeled.png')
    (folder / 'files.txt').write_text(''.join(f'{number}.png\n' for number in range(10)))
    return folder


class Ranges(SimpleHTTPRequestHandler):
    """A web server that sends parts of files, as an object storage does."""

    def do_GET(self):
        match = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers.get('Range', ''))
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(206 if match else 200)
        if match and not self.server.ignores_ranges:
            first, last = int(match[1]), min(int(match[2]), len(content) - 1)
            self.send_header('Content-Range', f'bytes {first}-{last}/{len(content)}')
            content = content[first : last + 1]
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.server.sent.append(len(content))  # before the client can look
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def server(root):
    with ThreadingHTTPServer(('127.0.0.1', 0), lambda *args: Ranges(*args, directory=str(root))) as server:
        server.ignores_ranges, server.sent = False, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(params=['disk', 'server'])
def pool(request, root, tmp_path, capsys):
    """Data root and list of the shards, as the command writes them."""
    address = str(root)
    if request.param == 'server':
        address = f'http://127.0.0.1:{request.getfixturevalue("server").server_port}'
    assert main(['shards', str(tmp_path / 'pool.txt'), f'{address}/pool/{{00..01}}.tar']) == 0
    output = capsys.readouterr().out
    assert '10 images of 2 shards' in output
    source = eval(output[output.index('unlabeled=') + 10 :].replace('...', 'PIPELINE'))
    assert source['data_root'] == f'{"tar+" if request.param == "server" else "tar://"}{address}/pool'
    return source


def build(root, unlabeled):
    labeled = {'ann_file': 'labeled.txt', 'pipeline': PIPELINE}
    return SemiDataset(labeled, unlabeled, data_root=str(root), metainfo=META)


def batches(dataset, workers=0, first=0):
    sampler = DualStreamSampler(dataset, 1, 2, seed=3)
    sampler.set_position(first)
    loader = DataLoader(dataset, 3, sampler=sampler, num_workers=workers, collate_fn=list)
    return [torch.stack([torch.from_numpy(item['img'].copy()) for item in batch]) for batch in loader]


def test_shards_train_like_files(root, pool):
    files = batches(build(root, {'ann_file': 'files.txt', 'pipeline': PIPELINE}))
    dataset = build(root, pool)
    assert read_header(dataset.get_data_info(3)['img_path']).size(False) == (9, 9)
    for first, workers in ((0, 0), (0, 2), (3, 0)):  # in workers after use here, and resumed
        found = batches(dataset, workers, first)
        assert len(found) == 5 - first
        assert all(torch.equal(one, other) for one, other in zip(files[first:], found, strict=True))


def test_only_the_bytes_of_an_image_are_read(root, server):
    lines = [
        f'tar+http://127.0.0.1:{server.server_port}/pool/01.tar{end}'
        for end in list_images(f'{root}/pool/01.tar')
    ]
    server.sent.clear()
    assert fileio.get(lines[2]) == (root / '7.png').read_bytes()
    assert server.sent == [(root / '7.png').stat().st_size]
    server.ignores_ranges = True
    with pytest.raises(OSError, match=r'expected .* bytes, found 10240.* sends no ranges'):
        fileio.get(lines[2])
    server.ignores_ranges = False


def test_missing_and_short_shards_are_no_files(root, tmp_path):
    (end, *_) = list_images(f'{root}/pool/00.tar')
    backend = TarBackend()
    assert backend.isfile(f'tar://{root}/pool/00.tar{end}')
    assert (
        backend.isfile(f'tar://{root}/files.txt')
        and backend.get_text(f'tar://{root}/files.txt')[:5] == '0.png'
    )
    assert not backend.isfile(f'tar://{root}/pool/02.tar{end}')
    (tmp_path / '00.tar').write_bytes((root / 'pool/00.tar').read_bytes()[:600])
    assert not backend.isfile(f'tar://{tmp_path}/00.tar{end}')
    with pytest.raises(OSError, match=r'00\.tar.*expected \d+ bytes, found'):
        backend.get(f'tar://{tmp_path}/00.tar{end}')


def test_an_interrupted_listing_goes_on(root, tmp_path, capsys, monkeypatch):
    command = ['shards', str(tmp_path / 'pool.txt'), f'{root}/pool/{{00..01}}.tar']
    assert main(command) == 0
    whole = (tmp_path / 'pool.txt').read_text()
    # the first shard is complete, the second one is not
    (tmp_path / 'pool.txt.part').write_text(whole[:-40])
    read = []
    monkeypatch.setattr(
        'allspark_mmseg.cli.shards.list_images',
        lambda address, suffix: read.append(address) or list_images(address, suffix),
    )
    assert main(command) == 0
    assert (tmp_path / 'pool.txt').read_text() == whole and not (tmp_path / 'pool.txt.part').exists()
    assert read == [f'{root}/pool/01.tar']


def test_ranges():
    assert expand_ranges('a/{08..10}/b-{0..1}.tar') == [
        f'a/{i}/b-{j}.tar' for i in ('08', '09', '10') for j in (0, 1)
    ]


@pytest.mark.parametrize(
    ('members', 'options', 'message'),
    [
        ({'1.jpg': b'x', '1.seg.png': b'x'}, [], r'the sample 1 has two images.*--suffix \.jpg'),
        ({'1.jpg': b'x'}, ['--suffix', '.webp'], 'expected images in the shards, found none'),
        ({'a\tb.jpg': b'x'}, [], r'cannot be in a list\. Rename it'),
        (None, [], 'expected an uncompressed tar file'),
    ],
)
def test_errors(tmp_path, capsys, members, options, message):
    shard = tmp_path / 'shard.tar'
    write_shard(shard, members) if members else shard.write_bytes(b'\x1f\x8b' * 999)
    assert main(['shards', str(tmp_path / 'pool.txt'), str(shard), *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / 'pool.txt').exists()


def test_an_image_beside_its_mask_is_chosen_by_its_suffix(tmp_path):
    write_shard(tmp_path / 'shard.tar', {'1.jpg': b'image', '1.png': b'mask', '2.jpg': b'image'})
    ends = list_images(str(tmp_path / 'shard.tar'), '.jpg')
    assert [TarBackend().get(f'tar://{tmp_path}/shard.tar{end}') for end in ends] == [b'image', b'image']


def test_a_missing_library_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('fsspec.core.url_to_fs', lambda *_, **__: exec('import no_such_library'))
    assert main(['shards', str(tmp_path / 'pool.txt'), 'http://host/0.tar']) == 2
    assert "pip install 'allspark-mmseg[shards]'" in capsys.readouterr().err
