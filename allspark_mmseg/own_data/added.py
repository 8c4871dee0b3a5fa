"""Masks that are added later: ``new DATA --add FOLDER`` for images that were unlabeled."""

import filecmp
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..pseudo_label import IGNORE_INDEX
from .convert import Job, convert_masks, target_of
from .drafts import find_drafts
from .files import Cache, Problem, is_image, list_files
from .labels import Labels, Options
from .listed import read_list
from .mask_facts import read_mask_facts
from .mask_forms import recognize
from .polygons import class_names, draw, find_polygons
from .roles import parse_name


def add_masks(
    root: Path,
    sources: Sequence[str],
    images: Mapping[str, dict],
    labels: Labels,
    options: Options,
) -> tuple[dict[str, str], list[Problem], list[str]]:
    """Convert masks of images to ``.allspark/masks``.

    Args:
        root (Path): The data.
        sources (Sequence[str]): Folders of masks or of labelme or COCO files, or lists of ``image mask``
            lines. Paths are relative to the working directory, or to ``root``. A mask has the name of its
            image, with or without words such as ``_mask``.
        images (Mapping[str, dict]): Facts of all images. Those in ``labels.masks`` get no other mask.
        labels (Labels): The masks so far; their classes stay.
        options (Options): What the user says about masks.

    Returns:
        tuple[dict[str, str], list[Problem], list[str]]: Image -> converted mask; files that fit no image; and
        files that are still as ``suggest`` drew them.

        Without ``accept_drafts`` of the options, they are not added.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: The masks have other classes.
    """
    pairs: dict[str, Path] = {}
    jobs: dict[str, Job] = {}
    problems: list[Problem] = []
    drafts: list[str] = []
    for source in sources:
        path = next((place for place in (Path(source), root / source) if place.exists()), None)
        if path is None:
            raise FileNotFoundError(f'--add {source} does not exist; expected a folder of masks or a list.')
        if path.is_file() and path.suffix == '.txt':
            rows = [(image, mask) for image, mask in read_list(path) if mask is not None]
            pairs |= {image: root / mask for image, mask in rows if image in images}
            continue
        folder = path.parent if path.is_file() else path
        names = [path.name] if path.is_file() else list_files(path)
        untouched = find_drafts(folder, names)
        drafts += [str(folder / name) for name in untouched]
        if not options.accept_drafts:
            names = [name for name in names if name not in set(untouched)]
        found, lost = _match(folder, [name for name in names if is_image(name)], list(images))
        drawn, more = _polygon_jobs(folder, names, images, labels)
        beside = {Path(job.source).parent for job in drawn.values()}
        for image, path in found.items():
            if filecmp.cmp(path, root / image, shallow=False):
                continue  # a copy of the image
            if path.name == PurePosixPath(image).name and path.resolve().parent in beside:
                lost.append(Problem(str(path), 'is taken for the image of the polygons beside it'))
            else:
                pairs[image] = path
        jobs |= drawn
        problems += [*lost, *more]
    known = [*(pairs.keys() | jobs.keys()) & labels.masks.keys()]
    problems += [Problem(image, 'has a mask already, and keeps it') for image in sorted(known)]
    # a mask beside a JSON file of the same image is a preview of it
    pairs = {k: v for k, v in pairs.items() if k not in jobs and k not in labels.masks}
    new, wrong = _pixel_jobs(pairs, images, labels, options)
    chosen = [*(job for image, job in jobs.items() if image not in labels.masks), *new]
    convert_masks(root, chosen)
    return {job.image: target_of(job.image) for job in chosen}, [*problems, *wrong], drafts


def read_added(root: Path, added: Mapping[str, str], labels: Labels, cache: Cache) -> None:
    """Put added masks, which hold class numbers, among the others.

    Args:
        root (Path): The data.
        added (Mapping[str, str]): Image -> mask.
        labels (Labels): Changed in place.
        cache (Cache): Results of earlier runs.
    """
    present = {image: mask for image, mask in added.items() if (root / mask).is_file()}
    facts = cache.map(
        lambda path: read_mask_facts(root / path),
        root,
        sorted(present.values()),
        'mask',
        'reading added masks',
    )
    for image, mask in present.items():
        counts = np.zeros(256, np.int64)
        for value, count in facts[mask]['values']:
            counts[value] = count
        labels.masks[image], labels.counts[image] = mask, counts


def _match(
    folder: Path, names: Sequence[str], images: Sequence[str]
) -> tuple[dict[str, Path], list[Problem]]:
    """Match masks and images by the ends of their paths, without suffixes and words of roles."""
    by_end: dict[str, list[str]] = {}
    for image in images:
        for key in (_stem(image), parse_name(image).key.rpartition('/')[2]):
            by_end.setdefault(key, []).append(image)
    pairs: dict[str, Path] = {}
    problems = []
    for name in names:
        options = by_end.get(_stem(name)) or by_end.get(parse_name(name).key.rpartition('/')[2], [])
        nested = [image for image in options if image.rpartition('.')[0].endswith(name.rpartition('.')[0])]
        options = list(dict.fromkeys(nested or options))
        if len(options) == 1:
            pairs[options[0]] = folder / name
        else:
            reason = 'fits no image' if not options else f'fits {len(options)} images'
            problems.append(Problem(str(folder / name), reason))
    return pairs, problems


def _stem(path: str) -> str:
    return PurePosixPath(path).stem.lower()


def _polygon_jobs(
    folder: Path, names: Sequence[str], images: Mapping[str, dict], labels: Labels
) -> tuple[dict[str, Job], list[Problem]]:
    candidates = [name for name in names if name.lower().endswith('.json')]
    parts, problems = find_polygons(folder, candidates, list(images))
    if parts:
        class_names(parts, labels.classes)  # raises for unknown labels
    jobs = {}
    for part in sorted(parts, key=lambda part: part.form):  # COCO, labelme: the latter are edited one by one
        for image, shapes in part.images.items():
            width, height = images[image]['size']
            signature = json.dumps([shapes, labels.classes])

            def decode(shapes: list = shapes, size: tuple = (width, height)) -> np.ndarray:
                return draw(shapes, size, labels.classes)

            # a COCO file can list images that nobody has annotated
            if shapes or part.form == 'labelme':
                jobs[image] = Job(image, str((folder / part.path).resolve()), decode, signature)
    return jobs, problems


def _pixel_jobs(
    pairs: Mapping[str, Path], images: Mapping[str, dict], labels: Labels, options: Options
) -> tuple[list[Job], list[Problem]]:
    problems, facts = [], {}
    for image, path in pairs.items():
        fact = read_mask_facts(path)
        reason = fact.get('error')
        if reason is None and fact['size'] != images[image]['size']:
            reason = 'has {} x {} pixels, its image {} x {}'.format(*fact['size'], *images[image]['size'])
        if reason:
            problems.append(Problem(str(path), reason))
        else:
            facts[image] = fact
    if not facts:
        return [], problems
    form = recognize(list(facts.values()), options.table, options.threshold, len(labels.classes) == 2)
    if form.kind == 'shifted':
        # the added images need not show every class, so 0 can be absent
        form.kind, form.table = 'numbers', list(range(256))
    jobs = []
    for image, fact in facts.items():
        counts = form.counts(fact)
        found = [] if counts is None else np.flatnonzero(counts).tolist()
        wrong = [number for number in found if len(labels.classes) <= number != IGNORE_INDEX]
        if wrong:
            raise ValueError(
                f'{pairs[image]} has the classes {wrong[:8]}, but the data have {len(labels.classes)}: '
                f'{labels.classes}. Add masks of the same classes.'
            )
        source = str(pairs[image].resolve())
        signature = json.dumps([form.kind, form.table, form.levels, form.colors])
        jobs.append(Job(image, source, lambda s=source: form.decode(Path(s)), signature))  # type: ignore[misc]
    return jobs, problems
