"""The role of files, from the names of their folders and files: images or masks, training or validation."""

import re
from collections.abc import Sequence
from typing import NamedTuple

MASK, IMAGE = 'mask', 'image'
_MASK_WORDS = frozenset((
    'mask', 'masks', 'label', 'labels', 'annotation', 'annotations', 'annot', 'annots', 'ann', 'anns',
    'gt', 'gts', 'groundtruth', 'seg', 'segs', 'segmentation', 'segmentations', 'segmentationclass',
    'segmentationclassaug', 'target', 'targets', 'labelids', 'labeltrainids', 'gtfine', 'gtcoarse',
    'semantic',
))  # fmt: skip
_IMAGE_WORDS = frozenset((
    'image', 'images', 'img', 'imgs', 'jpegimages', 'photo', 'photos', 'picture', 'pictures', 'input',
    'inputs', 'rgb', 'frames', 'unlabeled', 'leftimg8bit',
))  # fmt: skip
# word -> part of the data
_SPLITS = {
    'train': 'train', 'training': 'train', 'labeled': 'train', 'trn': 'train',
    'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val',
    'test': 'test', 'testing': 'test', 'tst': 'test',
    'unlabeled': 'unlabeled', 'extra': 'unlabeled',
}  # fmt: skip
_SEPARATORS = re.compile(r'[\s_.\-]+')


class Name(NamedTuple):
    """What the path of a file says.

    Attributes:
        role (str, optional): ``'mask'`` or ``'image'``.
        split (str, optional): ``'train'``, ``'val'``, ``'test'`` or ``'unlabeled'``.
        key (str): The path without these words and without suffix, in lower case. An image and its mask have
            the same key.
        family (str): Files of one kind: the folder without the words of a split, the word of a role in the
            name, and the suffix.
    """

    role: str | None
    split: str | None
    key: str
    family: str


def _words(text: str) -> list[str]:
    """Split at separators, and split ``trainannot`` into ``train`` and ``annot``."""
    words = []
    for word in filter(None, _SEPARATORS.split(text.lower())):
        word = re.sub('lled$', 'led', word)  # the British spelling of labeled
        year = re.fullmatch(r'([a-z]+)(?:19|20)\d\d', word)  # COCO has train2017
        word = year[1] if year and year[1] in _SPLITS else word
        for split in _SPLITS:
            rest = word.removeprefix(split)
            if rest != word and rest in _MASK_WORDS | _IMAGE_WORDS:
                words += [split, rest]
                break
        else:
            words.append(word)
    return words


def _role(words: Sequence[str]) -> str | None:
    if any(word in _MASK_WORDS for word in words):
        return MASK
    return IMAGE if any(word in _IMAGE_WORDS for word in words) else None


def parse_name(path: str) -> Name:
    """Read role, split and key from a path.

    Args:
        path (str): A path with slashes, relative to the data.

    Returns:
        Name: What it says.

    Examples:
        >>> parse_name('train/masks/a_mask.png').key, parse_name('train/images/a.jpg').key
        ('a', 'a')
    """
    *folders, name = path.split('/')
    stem, _, suffix = name.rpartition('.')
    role = split = None
    key, family = [], []
    for folder in folders:
        words = _words(folder)
        found = [_SPLITS[word] for word in words if word in _SPLITS]
        split = found[-1] if found else split
        role = _role(words) or role
        rest = [word for word in words if word not in _SPLITS and _role([word]) is None]
        if rest:
            key.append('_'.join(rest))
        family.append('_'.join(word for word in words if word not in _SPLITS) or '*')
    tokens = _SEPARATORS.split(stem.lower())
    ends = _role_words_at_ends(tokens)
    rest = [token for token in tokens if token not in ends] or tokens
    key.append('_'.join(rest))
    role = _role(ends) or role
    family += [f'{"+".join(sorted(ends))}*.{suffix.lower()}']
    return Name(role, split, '/'.join(key), '/'.join(family))


def _role_words_at_ends(tokens: Sequence[str]) -> list[str]:
    first, last = 0, len(tokens)
    while first < last - 1 and _role([tokens[first]]):
        first += 1
    while last - 1 > first and _role([tokens[last - 1]]):
        last -= 1
    return [*tokens[:first], *tokens[last:]]


def strip_common_ends(names: Sequence[str]) -> dict[str, str]:
    """Remove what all names of a family have in common at their ends, for example ``_leftimg8bit``.

    Args:
        names (Sequence[str]): The last parts of keys.

    Returns:
        dict[str, str]: The shorter name of each name.
    """
    first, last = min(names), max(names)
    start = _common(first, last)
    back = [name[::-1] for name in names]
    end = _common(min(back), max(back))[::-1]
    # whole words only: names such as 0001 and 0002 keep their zeros
    start = start[: start.rfind('_') + 1]
    end = end[end.find('_') :] if '_' in end else ''
    return {name: name[len(start) : len(name) - len(end)] or name for name in names}


def _common(first: str, last: str) -> str:
    for index, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return first[:index]
    return min(first, last, key=len)
