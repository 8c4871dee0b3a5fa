"""The networks of a run, and their predictions on the validation images."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample

from ..engine.scoreboard import SUPERVISED
from ..pseudo_label import IGNORE_INDEX
from ..trained_model import find_checkpoint, load_model
from .runs import Run


@dataclass
class Network:
    """A trained network of a run.

    Attributes:
        name (str): Name in tables and pictures.
        run (Run): Its run.
        checkpoint (Path): Its checkpoint.
        supervised (bool): Whether it learned from labeled images alone.
    """

    name: str
    run: Run
    checkpoint: Path
    supervised: bool

    def key(self, dataset: BaseSegDataset) -> str:
        """Return a text that changes when the checkpoint or the validation set changes.

        Args:
            dataset (BaseSegDataset): The validation set; its config, images and masks count.
        """
        digest = hashlib.sha256(repr(self.run.config.get('val_dataloader')).encode())
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            digest.update(
                ''.join(str(_mark(info.get(name))) for name in ('img_path', 'seg_map_path')).encode()
            )
        return f'{_mark(str(self.checkpoint))} {digest.hexdigest()}'


def _mark(path: str | None) -> tuple:
    """Return what changes with a file."""
    if path is None or not Path(path).is_file():
        return (path,)
    stat = Path(path).stat()
    return path, stat.st_mtime_ns, stat.st_size


def find_networks(run: Run, supervised: str = 'Supervised') -> list[Network]:
    """Find the networks of a run.

    Args:
        run (Run): The run.
        supervised (str): Name of the network of a supervised phase.

    Returns:
        list[Network]: For a run with two phases the best network of each phase that has one, supervised
        first. Otherwise the best checkpoint, or the last one. Empty if there is no checkpoint.
    """
    phases = ((SUPERVISED, supervised), (run.method, run.name)) if run.summary else ()
    found = [
        Network(name, run, run.work_dir / f'{phase}.pth', phase == SUPERVISED)
        for phase, name in phases
        if (run.work_dir / f'{phase}.pth').is_file()
    ]
    if found:
        return found
    try:
        return [Network(run.name, run, find_checkpoint(run.work_dir), not run.semi_supervised)]
    except FileNotFoundError:
        return []


def build_val_dataset(config: Config, source: str | Path) -> BaseSegDataset:
    """Build the data set of the config's ``val_dataloader``; its samples contain the ground truth.

    Args:
        config (Config): The config.
        source (str | Path): Where it is from, for the messages.

    Returns:
        BaseSegDataset: The data set.

    Raises:
        KeyError: The config has no ``val_dataloader``.
        FileNotFoundError: The validation images are not there.
        ValueError: The data set is empty or has more than 255 classes.
    """
    if not config.get('val_dataloader'):
        raise KeyError(f'{source} has no val_dataloader; expected one whose data set has masks')
    init_default_scope(config.get('default_scope', 'mmseg'))
    root = config.val_dataloader.dataset.get('data_root')
    if root and not Path(root).exists():
        raise FileNotFoundError(
            f'{source}: the data_root {root} of the validation images does not exist here. Run the command '
            'in the folder from which the training started.'
        )
    dataset = DATASETS.build(config.val_dataloader.dataset)
    classes = dataset.metainfo.get('classes') or ()
    if not len(dataset) or not 0 < len(classes) <= IGNORE_INDEX:
        raise ValueError(
            f'{source}: the validation set has {len(dataset)} images and {len(classes)} classes; expected at '
            f'least one image and 1 to {IGNORE_INDEX} classes'
        )
    return dataset


def check_same_data(first: BaseSegDataset, second: BaseSegDataset, first_name: str, second_name: str) -> None:
    """Check that two runs validate on the same images and classes.

    Args:
        first (BaseSegDataset): A validation set.
        second (BaseSegDataset): The other one.
        first_name (str): Name of the first, for the message.
        second_name (str): Name of the second, for the message.

    Raises:
        ValueError: The validation sets differ.
    """

    def contents(dataset: BaseSegDataset) -> tuple[list[str], list[str]]:
        paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
        return paths, list(dataset.metainfo['classes'])

    if contents(first) != contents(second):
        raise ValueError(
            f'{first_name} and {second_name} validate on different images or classes; expected runs with the '
            'same val_dataloader.dataset'
        )


def check_labels(sample: SegDataSample, num_classes: int) -> None:
    """Check that ground truth and prediction contain only classes.

    Args:
        sample (SegDataSample): With ``gt_sem_seg`` and ``pred_sem_seg``.
        num_classes (int): Number of classes C.

    Raises:
        ValueError: There is no ground truth, a label is outside [0, C) and not ignored, or the two shapes
            differ.
    """
    if 'gt_sem_seg' not in sample:
        raise ValueError('there is no mask; expected LoadAnnotations in the pipeline of val_dataloader')
    truth, prediction = sample.gt_sem_seg.data, sample.pred_sem_seg.data
    if truth.shape != prediction.shape:
        raise ValueError(
            f'the ground truth is {tuple(truth.shape)}, the prediction {tuple(prediction.shape)}; expected '
            'equal shapes'
        )
    valid = truth != IGNORE_INDEX
    for kind, labels in (('ground truth', truth[valid]), ('prediction', prediction[valid])):
        if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(
                f'the {kind} contains labels from {labels.min()} to {labels.max()}; expected 0 to '
                f'{num_classes - 1} (and {IGNORE_INDEX}, ignored, in the ground truth)'
            )


def predict(
    network: Network, dataset: BaseSegDataset, indices: Sequence[int], device: str | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run one network on images of the data set, as MMSegmentation's validation loop does.

    Args:
        network (Network): The network.
        dataset (BaseSegDataset): The validation set, with at most 255 classes.
        indices (Sequence[int]): Indices of the images.
        device (str, optional): Where to run the model. Default: CUDA if there is one, else the CPU.

    Yields:
        tuple[np.ndarray, np.ndarray]: Ground truth and prediction of the next image, ``(H, W)`` uint8.

    Raises:
        ValueError: Ground truth or prediction contains labels that are not classes of the data set.
    """
    model = load_model(network.checkpoint, device=device)
    for index in indices:
        with torch.no_grad():
            (sample,) = model.val_step(pseudo_collate([dataset[index]]))
        try:
            check_labels(sample, len(dataset.metainfo['classes']))
        except ValueError as error:
            raise ValueError(f'{network.checkpoint}, image {sample.img_path}: {error}') from error
        maps = (sample.gt_sem_seg.data, sample.pred_sem_seg.data)
        truth, prediction = (labels.squeeze(0).byte().cpu().numpy() for labels in maps)
        yield truth, prediction


def read_image(dataset: BaseSegDataset, index: int) -> np.ndarray:
    """Read a validation image for display.

    Args:
        dataset (BaseSegDataset): The validation set.
        index (int): Index of the image.

    Returns:
        np.ndarray: RGB image ``(H, W, 3)`` uint8. A file that OpenCV does not read as 8 bits is shown as the
        pipeline loads it, with its first channel or its first three, from the lowest to the highest value.
    """
    try:
        image = mmcv.imread(dataset.get_data_info(index)['img_path'], channel_order='rgb')
    except (OSError, ValueError, AttributeError, TypeError):
        image = None
    if image is not None and image.dtype == np.uint8:
        return image
    loaded = np.asarray(dataset[index]['inputs'], np.float32)
    bands = loaded[[2, 1, 0]] if len(loaded) >= 3 else loaded[[0, 0, 0]]
    low, high = np.nanmin(bands), np.nanmax(bands)
    scaled = np.nan_to_num((bands - low) / max(high - low, 1e-12))
    return (255 * scaled).round().astype(np.uint8).transpose(1, 2, 0)


def read_truth(dataset: BaseSegDataset, index: int) -> np.ndarray:
    """Return the ground truth of a validation image, ``(H, W)`` uint8."""
    return dataset[index]['data_samples'].gt_sem_seg.data.squeeze(0).numpy().astype(np.uint8)
