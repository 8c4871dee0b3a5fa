"""Pairs of images and masks by their names."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from .roles import Name, strip_common_ends


def match(names: dict[str, Name], images: Sequence[str], masks: Sequence[str]) -> dict[str, str]:
    """Match images and masks by their keys; then by the names alone; then without common ends.

    If images and masks have folders in common, a name alone does not match files of two different folders.

    Args:
        names (dict[str, Name]): What the paths say.
        images (Sequence[str]): The images.
        masks (Sequence[str]): Masks of one family.

    Returns:
        dict[str, str]: Image -> mask; each mask once.
    """
    pairs = _match_unique(
        {p: _with_split(names[p]) for p in images}, {p: _with_split(names[p]) for p in masks}
    )
    folders = [{names[path].key.rpartition('/')[0] for path in paths} - {''} for paths in (images, masks)]
    for shorten in (False, True):
        rest_images = [path for path in images if path not in pairs]
        rest_masks = sorted(set(masks) - set(pairs.values()))
        if rest_images and rest_masks:
            found = _match_unique(_short(names, rest_images, shorten), _short(names, rest_masks, shorten))
            pairs |= {
                image: mask
                for image, mask in found.items()
                if not folders[0] & folders[1] or not _in_other_folders(names[image], names[mask])
            }
    return pairs


def _in_other_folders(image: Name, mask: Name) -> bool:
    one, other = (name.key.rpartition('/')[0] for name in (image, mask))
    return bool(one and other and one != other)


def _with_split(name: Name) -> str:
    return f'{name.split}/{name.key}'


def _short(names: dict[str, Name], paths: Sequence[str], shorten: bool) -> dict[str, str]:
    by_family = defaultdict(list)
    for path in paths:
        by_family[names[path].family].append(path)
    result = {}
    for members in by_family.values():
        ends = {path: names[path].key.rpartition('/')[2] for path in members}
        shorter = strip_common_ends(list(ends.values())) if shorten and len(members) > 1 else {}
        result.update({path: shorter.get(end, end) for path, end in ends.items()})
    return result


def _match_unique(images: dict[str, str], masks: dict[str, str]) -> dict[str, str]:
    by_key = defaultdict(list)
    for path, key in masks.items():
        by_key[key].append(path)
    counts = Counter(images.values())
    return {
        image: by_key[key][0] for image, key in images.items() if counts[key] == 1 and len(by_key[key]) == 1
    }
