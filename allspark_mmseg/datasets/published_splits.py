"""The published split lists of Pascal VOC, Cityscapes and COCO: their digests, and the rules behind some.

The lists are the same as in the AllSpark repository (arXiv:2403.01818). All lists except ``voc/1_2`` are also
in the UniMatch repository (arXiv:2208.09910). This package contains none of them.
``tools/dataset_converters/make_splits.py`` computes the lists that follow a rule from the data set and copies
the others from one of these repositories. A digest decides whether a list is the published one.
"""

import hashlib
import os
import random
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REFERENCES = ('https://github.com/xmed-lab/AllSpark', 'https://github.com/LiheYoung/UniMatch')
TOOL = 'python tools/dataset_converters/make_splits.py'
DEFAULT_OUT = 'data/splits'
DATASETS = ('voc', 'cityscapes', 'coco')  # folders of the lists, and subcommands of the tool
VOC_WITHOUT_RULE = ('u2pl_1_4', '92', '183', '366', '732')


class Published(NamedTuple):
    """A published list.

    Attributes:
        lines (int): Number of images.
        digest (str): The sha256 of the file (64 digits). If only the git blob id is known, it is the git blob
            id (40 digits).
    """

    lines: int
    digest: str


# path below data/splits, number of lines, digest; the line counts beside a git blob id are inferred
LISTS = {
    path: Published(int(lines), digest)
    for path, lines, digest in map(
        str.split,
        """
        voc/train_aug.txt 10582 f04ab664c71f84950a3a1fd28544b6851500c81a9aff890c4b9279639a32152c
        voc/val.txt 1449 df002e3a730c57678f63aa3e46a4c827a4066f1dc1814e24d0e8b215075e0c6c
        voc/1_16/labeled.txt 662 0f5e114e6504c8afec6523db91f05503f120d1365cf505e6f4ef99f316d5873b
        voc/1_16/unlabeled.txt 9920 29b30bf7adb5d39e642c57e3a3f4f26f9d4fb8f145098c430a597ef99160e36f
        voc/1_8/labeled.txt 1323 c5ea9bb095158a137e4c1db739b07d54a89af697de24ffd9e576493a4189653f
        voc/1_8/unlabeled.txt 9259 5246f6e0bec70363a5b898e0d685d37b0afcfab4a71c010e7026555294d9eca9
        voc/1_4/labeled.txt 2646 a4573ca0fa8f97c4013dba5f8b233e77a1a8dc7877539b1eb18c8206d37227d0
        voc/1_4/unlabeled.txt 7936 832ccd3a7971b1ed79e77f606a6736fa58d85f88aaf2eb88c856b27af74c847b
        voc/1_2/labeled.txt 5291 839f771c6211affd6bc940c662610e6ae58c1e1564794843fe6ac4b4aa491c90
        voc/1_2/unlabeled.txt 5291 6f4cb4b910fb8b3eb9a7f9513f862dd7525036071ee0e505046d4b9c62fa3156
        voc/1464/labeled.txt 1464 b20486876df309c57c8230e957b2957fff5392ff5cb11f225e8453ed6c50ba3e
        voc/1464/unlabeled.txt 9118 3ba331d08fee0751486a8be3f9f269f9efc09faa82a32a703bbb7deda4d66544
        voc/u2pl_1_16/labeled.txt 662 a58cf5eda18c8e060c8fef0233b388b488e62e5903076fed90b5bd34cf6735d3
        voc/u2pl_1_16/unlabeled.txt 9920 4f038ee0eef3dc96863906821f2eb78c430941d9151ad78366fdbcc0b9e3aa8f
        voc/u2pl_1_8/labeled.txt 1323 cebe5f2fda695dd72ff3336d6bfef95967c903fe4d404d9827a42c5fbc1dfd8a
        voc/u2pl_1_8/unlabeled.txt 9259 fc4708a91ce72d15c1bf3515334abcc09d604f83f5110c12a5548af126e6f768
        voc/u2pl_1_4/labeled.txt 2646 b740bcf1ac91477ff0df913594ea70a00ced359a007a4050cac487f136470fa4
        voc/u2pl_1_4/unlabeled.txt 7936 43652ae8048ee32a75df1e27dd56147ad606d65a3721ac056294d6c7fb08ee06
        voc/92/labeled.txt 92 8a02aa6a1253178b105bd25b36f0a27daeedf6b3959f399aa47d24783f3a8306
        voc/92/unlabeled.txt 10490 a3eb5ef8d2ae547f131bfa60b8111d21700d458b545741336633d5aa209254d5
        voc/183/labeled.txt 183 de3f4680391cb15324402dae17ac0919933d0d9004c11a641c924f3f67147f9f
        voc/183/unlabeled.txt 10399 39aa3fd2997799c57c7d68d1ab342e2ebf53224ab10c1766a9fcd1554afbfd6a
        voc/366/labeled.txt 366 74f6bd1e459a8b46fc204529d70b603769f8a45aef4553df8a5c04b5698e77b7
        voc/366/unlabeled.txt 10216 591c593546d1dbb65bd4d08ae99fabc1e9958d614c8079c8961422b8b7df7433
        voc/732/labeled.txt 732 02c8ec5b62e27364f5bc91eb95bccf54debaa721e9d31c50c07507aea258fd0f
        voc/732/unlabeled.txt 9850 8ddf828ec616b551447dc402c2c53eb7d0044697a0b6bacd6190ee843ffbf340
        cityscapes/val.txt 500 cf5aa35c0e4446bc684b61b6be88e22299ef7b1851852b53fc6a34794f161544
        cityscapes/1_30/labeled.txt 100 b11041fef70476fb5564af0ef006a8013622da9cf49c7faf4182f3e26eb32742
        cityscapes/1_30/unlabeled.txt 2875 1b8a9b7bb4f9f6f06a3dffe766efe8b10a14a0137637af1738bbb417a5c85dbe
        cityscapes/1_16/labeled.txt 186 64195914dce1231133c7dc611fece213bc3a87fe4e0b73fbd96add7dfa8a2f46
        cityscapes/1_16/unlabeled.txt 2789 7f18e2aefb5e88598910e291a935117daaeef51c6828edeb62f8a6c882be0a79
        cityscapes/1_8/labeled.txt 372 97291dfc509a8c90ee94e1c5fd1f7668c21205b995f53b963ac133f0ed96ee8e
        cityscapes/1_8/unlabeled.txt 2603 5d7d33e39a8bda908e12d7f33ecb3299f93a8596fbe3c5e0cc1f2d3f5d358459
        cityscapes/1_4/labeled.txt 744 8edd24ae817eed7b49d0a06c95b7bfaf769002c98387e4edeab5e221ab7791c3
        cityscapes/1_4/unlabeled.txt 2231 6fc53258ed2e40f72f4a22b6e20d60a789168fdf6b860033f826e8bee3900e9b
        cityscapes/1_2/labeled.txt 1488 90d8e29d4d182c3b3def3d1fac02e454868c4ca632f73696bb521aa05e937ee4
        cityscapes/1_2/unlabeled.txt 1487 23d0efaa43a65608b25eb078ed058c53979957e44407d787e3abdda9a795d289
        coco/train.txt 118287 4509e74989de83a621740e54e63a8e0226e709e2
        coco/val.txt 5000 5a296a8b638114611e81c3b2257ec1720c8c16300f29ac24fcd8ddf08c9eb6d8
        coco/1_512/labeled.txt 232 bd0ff85bf2d35b4641d08c2201257ad5b5f02f85ea0da457f44f0b97c4caeb37
        coco/1_512/unlabeled.txt 118055 160fdebb7b6b7686b685313988b5eba8c13c1c92
        coco/1_256/labeled.txt 463 4cdf41b9d3b3afc3734057a605015860501199ed3680370ccb2c677fc159b127
        coco/1_256/unlabeled.txt 117824 de7db7700a985b54f42999b87fdf2ff4b40c990d
        coco/1_128/labeled.txt 925 06067c0fb879b8e6ab8f4bdab3dfa641e8e4da2990200fa156daa33670329d79
        coco/1_128/unlabeled.txt 117362 1e3336558346e80735c16bd9ebf0d7b6d211750d
        coco/1_64/labeled.txt 1849 622b84ccbb5dcba32f4f5bb4ffaf1a9cf3e3f1f460b55dc02605fd099ebf1337
        coco/1_64/unlabeled.txt 116438 11f966be4c3a7bcda01b5e480ee15bbcba0e1181
        coco/1_32/labeled.txt 3697 781b5990914f7422ee9e1f6325a914f289e077621b77b9cd066c2d01d33a939e
        coco/1_32/unlabeled.txt 114590 e59f4b742367481e18fb106c253fed358b4a7ab5
        """.strip().splitlines(),
    )
}
# sha256 of the sorted lines, each with a newline, for the lists whose order follows no known rule
SORTED_SHA256 = {
    'voc/1464/unlabeled.txt': 'd30e7e63f7d108b69c21c22bb59c93f0b6d7f89f6065f7e56b2b5a068d4651e7',
    'voc/u2pl_1_16/unlabeled.txt': 'f12ebc287c8f1380e53d39023c00ba78eccf1ba7e6341217ee63c77062b0271c',
    'voc/u2pl_1_8/unlabeled.txt': 'a6eee0a07e48a33287a2c811ff18f75104ab4840a637ffcf635ff7805f864db6',
    'voc/u2pl_1_4/unlabeled.txt': '05d218d1ee0045d6be408beea93e844f09b26db27a7aa0530a9d74a51b2982b3',
}


def needs_reference(path: str) -> bool:
    """Return whether the list ``path`` of `LISTS` cannot be computed from the data set alone."""
    dataset, folder = path.split('/')[:2]
    return dataset != 'voc' or folder in VOC_WITHOUT_RULE


def _digest(content: bytes, like: str) -> str:
    if len(like) == 40:
        return hashlib.sha1(b'blob %d\0' % len(content) + content, usedforsecurity=False).hexdigest()
    return hashlib.sha256(content).hexdigest()


def is_published(path: str, content: bytes) -> bool:
    """Return whether ``content`` equals the published list ``path`` byte for byte."""
    expected = LISTS[path].digest
    return _digest(content, expected) == expected


def verify(path: str, content: bytes) -> str:
    """Compare a list with the published one.

    Args:
        path (str): A key of `LISTS`.
        content (bytes): The file.

    Returns:
        str: ``'sha256 equal'`` or ``'git blob id equal'``. For a list of `SORTED_SHA256` with
        the published images in another order: ``'same images, another order'``.

    Raises:
        ValueError: The list is not the published one.
    """
    lines, expected = LISTS[path]
    kind = 'git blob id' if len(expected) == 40 else 'sha256'
    if is_published(path, content):
        return f'{kind} equal'
    ordered = b''.join(line + b'\n' for line in sorted(content.splitlines()))
    if hashlib.sha256(ordered).hexdigest() == SORTED_SHA256.get(path):
        return 'same images, another order'
    raise ValueError(
        f'expected {lines} lines with {kind} {expected}, found {len(content.splitlines())} lines with '
        f'{_digest(content, expected)}'
    )


def encode(path: str, lines: Sequence[str]) -> bytes:
    """Encode ``lines`` as the file ``path``. Some published lists end with a newline, others do not."""
    without_newline = '\n'.join(lines).encode()
    return without_newline if is_published(path, without_newline) else without_newline + b'\n'


def voc_line(name: str) -> str:
    """Return the line of the Pascal VOC lists for an image id such as ``'2007_000032'``."""
    return f'JPEGImages/{name}.jpg SegmentationClass/{name}.png'


def every(lines: Sequence[str], step: int) -> tuple[list[str], list[str]]:
    """Return lines 0, ``step``, 2 ``step``, ... (labeled), and the others in order (unlabeled)."""
    return list(lines[::step]), [line for index, line in enumerate(lines) if index % step]


def interleave(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return ``first[0], second[0], first[1], ...``.

    Args:
        first (Sequence[str]): As long as ``second``, or longer by one.
        second (Sequence[str]): The other lines.

    Returns:
        list[str]: All lines.
    """
    lines = [''] * (len(first) + len(second))
    lines[::2], lines[1::2] = first, second
    return lines


def u2pl_sample(lines: Sequence[str], count: int) -> list[str]:
    """Draw ``count`` lines like the lists that are named after U2PL (arXiv:2203.03884)."""
    return random.Random(5).sample(lines, count)


def derive(known: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Compute every list that follows from published lists by a rule.

    Args:
        known (Mapping): Maps paths of `LISTS` to the lines of the list, exactly as published.

    Returns:
        dict[str, list[str]]: The same mapping for the lists that follow. Lists of `SORTED_SHA256` are sorted,
        the others have the published order.
    """
    derived: dict[str, list[str]] = {}

    def add(folder: str, labeled: list[str], unlabeled: list[str]) -> None:
        derived[f'{folder}/labeled.txt'], derived[f'{folder}/unlabeled.txt'] = labeled, unlabeled

    if train_aug := known.get('voc/train_aug.txt'):
        for step in (16, 8, 4, 2):
            add(f'voc/1_{step}', *every(train_aug, step))
        for folder, labeled in _voc_high_quality(known).items():
            add(f'voc/{folder}', labeled, sorted(set(train_aug) - set(labeled)))
    labeled_half = known.get('cityscapes/1_2/labeled.txt')
    unlabeled_half = known.get('cityscapes/1_2/unlabeled.txt')
    if labeled_half and unlabeled_half:
        for step in (16, 8, 4):
            add(f'cityscapes/1_{step}', *every(interleave(labeled_half, unlabeled_half), step))
    if coco := known.get('coco/1_32/labeled.txt'):
        derived['coco/1_512/labeled.txt'] = every(coco, 16)[0]
    return derived


def _voc_high_quality(known: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Labeled lines of the splits that label images of VOC's own train set first."""
    train = known.get('voc/1464/labeled.txt')
    if not train:
        return {}
    labeled = {
        '1464': list(train),
        'u2pl_1_16': u2pl_sample(train, 662),
        'u2pl_1_8': u2pl_sample(train, 1323),
    }
    if others := known.get('voc/1464/unlabeled.txt'):
        labeled['u2pl_1_4'] = u2pl_sample(others, 2646 - 1464) + list(train)
    return labeled


def command_for(ann_file: str, data_root: str) -> str | None:
    """Return the shell command that creates a missing split list, to be run in the folder of this repository.

    Args:
        ann_file (str): Path of the list.
        data_root (str): Folder of the data set.

    Returns:
        str, optional: The command. None if ``ann_file`` is not ``.../splits/`` followed by a key of `LISTS`.
    """
    if '://' in ann_file:  # the tool writes local files only
        return None
    parts = Path(os.path.abspath(ann_file)).parts
    for depth in (2, 3):
        path = '/'.join(parts[-depth:])
        if path in LISTS and parts[-depth - 1 : -depth] == ('splits',):
            break
    else:
        return None
    command = [*TOOL.split(), parts[-depth], '--data-root', data_root]
    if needs_reference(path):
        command += ['--reference', REFERENCES[0]]
    out = Path(*parts[:-depth])
    if out != Path(DEFAULT_OUT).absolute():
        command += ['--out', str(out)]
    return shlex.join(command)
