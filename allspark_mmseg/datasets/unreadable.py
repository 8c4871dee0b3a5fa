"""Files that cannot be read while a training runs."""

from typing import Any

from .image_headers import read_header
from .image_pixels import read_pixels

_MOST_IN_A_ROW = 10  # more unreadable images in a row mean that a disk is away


class UnreadableImageError(RuntimeError):
    """An image or a mask cannot be read. The message names the file and the reason, and no traceback.

    Args:
        message (str): The message, or the traceback of a worker that ends with it.
    """

    def __init__(self, message: str) -> None:
        # PyTorch raises the error of a worker again, with the traceback of the worker as the message
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


def find_problem(path: str) -> str:
    """Return why a file cannot be read as an image, as the end of a sentence; empty if it can.

    Args:
        path (str): The file.

    Returns:
        str: The reason.
    """
    header = read_header(path)
    return header.problem or read_pixels(header).problem


class CheckedPipeline:
    """The pipeline of a data set, with errors that name the file, and images that are skipped.

    A skipped image is replaced by another one of the same data set, which MMEngine's ``BaseDataset`` draws.
    The output then has ``unreadable`` in the metainfo of ``data_samples``: a list of (path, reason).

    Args:
        pipeline (Callable): The pipeline.
        key (str): Config key of the data set, for messages.
        skip (bool): Skip unreadable images. Otherwise they raise an error.
    """

    def __init__(self, pipeline: Any, key: str, skip: bool) -> None:
        self.pipeline = pipeline
        self.key = key
        self.skip = skip
        self.unreadable: list[tuple[str, str]] = []  # since the last output

    @property
    def transforms(self) -> list:
        """The transforms of the pipeline."""
        return getattr(self.pipeline, 'transforms', [])

    def __call__(self, results: dict) -> dict | None:
        """Apply the pipeline to an item.

        Args:
            results (dict): The item, with ``img_path``, and with ``seg_map_path`` if it has a mask.

        Returns:
            dict or None: The output of the pipeline. None if the image is skipped.

        Raises:
            UnreadableImageError: The image or its mask cannot be read.
        """
        paths = [results[name] for name in ('img_path', 'seg_map_path') if results.get(name)]
        try:
            output = self.pipeline(results)
        except Exception as error:
            problems = {path: problem for path in paths if (problem := find_problem(path))}
            if isinstance(error, OSError) and not problems and paths:
                problems = {paths[0]: f'cannot be read ({error})'}  # now it can be: a disk fails at times
            if not problems:
                raise
            self._skip(next(iter(problems.items())))
            return None
        if self.unreadable and output is not None:
            output['data_samples'].set_metainfo({'unreadable': self.unreadable})
            self.unreadable = []
        return output

    def _skip(self, problem: tuple[str, str]) -> None:
        path, reason = problem
        self.unreadable.append(problem)
        if self.skip and len(self.unreadable) <= _MOST_IN_A_ROW:
            return
        advice = (
            f'{len(self.unreadable)} images in a row are unreadable; check the disk'
            if self.skip
            else 'Restore the file, or allow a share of unreadable images with '
            'default_hooks.unreadable_images.max_share'
        )
        raise UnreadableImageError(
            f'{self.key}: {path} {reason}. {advice}. The same command with --resume continues.'
        )
