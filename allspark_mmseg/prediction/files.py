"""The images to predict, and a name for each result."""

from collections import Counter
from pathlib import Path, PurePosixPath

from mmengine import fileio

from ..datasets.list_lines import IMAGE_SUFFIXES


def find_images(source: str | Path, out: str | Path) -> list[PurePosixPath]:
    """List the images below a folder.

    Args:
        source (str | Path): The folder, or one image.
        out (str | Path): Folder of the results. Images in it are left out if it lies below ``source``.

    Returns:
        list[PurePosixPath]: Sorted paths relative to ``source``, or to the folder of the one image. Hidden
        files and folders are left out.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: There is no image.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f'{source} does not exist; expected an image or a folder of images.')
    endings = ', '.join(IMAGE_SUFFIXES)
    if source.is_file():
        if not source.name.lower().endswith(IMAGE_SUFFIXES):
            raise ValueError(f'{source} is no image; expected a folder or a file that ends with {endings}.')
        return [PurePosixPath(source.name)]
    names = fileio.list_dir_or_file(str(source), list_dir=False, recursive=True)
    images = sorted(PurePosixPath(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES))
    images = [image for image in images if not any(part.startswith('.') for part in image.parts)]
    inside = source.resolve() / '.'
    if Path(out).resolve().is_relative_to(inside) and Path(out).resolve() != source.resolve():
        results = PurePosixPath(Path(out).resolve().relative_to(inside).as_posix())
        images = [image for image in images if not image.is_relative_to(results)]
    if not images:
        raise ValueError(f'{source} contains no image; expected files that end with {endings}.')
    return images


def output_names(images: list[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Give each image a name for its results, without suffix.

    Args:
        images (list[PurePosixPath]): Different relative paths.

    Returns:
        dict[PurePosixPath, str]: Image -> name. ``a/b.jpg`` becomes ``a/b``. If another image would get the
        same name, such as ``a/b.png``, both keep their suffix: ``a/b.jpg`` and ``a/b.png``. Names that differ
        only in upper and lower case count as the same.
    """
    names = {image: str(image.with_suffix('')) for image in images}
    counts = Counter(name.casefold() for name in names.values())
    names = {image: name if counts[name.casefold()] == 1 else str(image) for image, name in names.items()}
    if len({name.casefold() for name in names.values()}) == len(names):
        return names
    return {image: str(image) for image in images}  # a.jpg, a.png and a.jpg.png
