"""The images to rank: the unlabeled stream of a run, or a folder or a list."""

import copy
import os.path as osp
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from ..datasets.image_list import ImageListDataset
from ..datasets.semi_dataset import SemiDataset
from ..utils import dicts_in


@dataclass
class Images:
    """Images of a run.

    Attributes:
        unlabeled (list[str]): Paths of the images to rank.
        labeled (list[str]): Paths of the labeled images.
        root (str): Folder of the data set. Names of images are relative to it.
    """

    unlabeled: list[str]
    labeled: list[str] = field(default_factory=list)
    root: str = ''

    def name(self, path: str) -> str:
        """Return the name of an image: its path relative to ``root``, with ``/``."""
        return Path(osp.relpath(osp.abspath(path), self.root)).as_posix()


def find_training_config(cfg: Config, folder: Path) -> Config | None:
    """Find the config that has the training data.

    The config in a plain checkpoint, such as ``chosen.pth``, has none; the config of its run is in the same
    folder.

    Args:
        cfg (Config): Config of the model.
        folder (Path): Folder of the checkpoint.

    Returns:
        Config | None: ``cfg``, or the newest config in the folder with ``train_dataloader``.
    """
    if cfg.get('train_dataloader'):
        return cfg
    for path in sorted(folder.glob('*.py'), key=lambda path: -path.stat().st_mtime):
        found = Config.fromfile(path)
        if found.get('train_dataloader'):
            return found
    return None


def images_of_run(cfg: Config | None) -> Images:
    """List the images of both streams of a run. No image is opened.

    Args:
        cfg (Config | None): Config of the run.

    Returns:
        Images: The streams. ``unlabeled`` is empty if the run has no unlabeled stream.

    Raises:
        FileNotFoundError: A list, a folder or an image does not exist.
    """
    if cfg is None:
        return Images([])
    config = _without_pipelines(copy.deepcopy(cfg.train_dataloader.dataset))
    dataset = DATASETS.build(config)
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    count = len(dataset.streams['labeled']) if isinstance(dataset, SemiDataset) else len(paths)
    return Images(paths[count:], paths[:count], _common_root(config.get('data_root') or '', paths[count:]))


def images_of_source(source: str | Path, run: Images) -> Images:
    """List the images of a folder or of a list, except those that the run has as labeled.

    Args:
        source (str | Path): A folder, or a text file with a path in each line, absolute or relative to the
            working directory.
        run (Images): Images of the run.

    Returns:
        Images: The images to rank, and the labeled images of the run.

    Raises:
        FileNotFoundError: The folder, the list or an image does not exist.
        ValueError: There is no image, or all images are labeled.
    """
    if not osp.exists(source):
        raise FileNotFoundError(f'--images {source} does not exist; expected a folder or a list of images')
    options: dict[str, Any] = (
        dict(data_prefix=dict(img_path=str(source))) if osp.isdir(source) else dict(ann_file=str(source))
    )
    dataset = ImageListDataset(labeled=False, pipeline=[], **options)
    known = set(map(osp.realpath, run.labeled))
    found = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    paths = [path for path in found if osp.realpath(path) not in known]
    if not paths:
        raise ValueError(f'--images {source}: all {len(found)} images are labeled images of the run')
    root = run.root or (str(source) if osp.isdir(source) else '')
    return Images(paths, run.labeled, _common_root(root, paths))


def _without_pipelines(config: Any) -> Any:
    """Replace all pipelines in a config by empty ones, in place."""
    for node in dicts_in(config):
        if 'pipeline' in node:
            node['pipeline'] = []
    return config


def _common_root(root: str, paths: list[str]) -> str:
    """Return the absolute ``root`` if all images are in it, else the deepest folder that has all of them."""
    absolute = [osp.abspath(path) for path in paths]
    if root and all(path.startswith(osp.join(osp.abspath(root), '')) for path in absolute):
        return osp.abspath(root)
    return osp.commonpath([osp.dirname(path) for path in absolute]) if absolute else osp.abspath(root)
