"""Vectors of CSS's geometric transforms (``generalframeworks/dataset_helpers/VOC.py``)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from common import patched
from PIL import Image
from torch import Tensor

from .mixing import drawn_boxes
from .record import Draws, Vectors
from .reference import RandomCrop, Reference
from .tracing import local_values, scripted_rand

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
# scale, whether to flip, radius of the blur
LABELED_CASES: list[tuple[float, int, float | None]] = [(0.5, 0, None), (0.83, 1, None), (1.4, 1, 0.9)]
# odd sides: no sample of a nearest resize falls on the border between two pixels
HEIGHT, WIDTH, CROP = 19, 27, (22, 20)
SIDE, IMAGES = 17, 3
KEYS = ('image', 'label_cls', 'label_rep', 'conf_cls', 'conf_rep')


class ScriptedRandom:
    """Stand-in for the module ``random``: ``uniform`` returns the given values in turn."""

    def __init__(self, values: Sequence[float | None]):
        self.values = list(values)

    def uniform(self, low: float, high: float) -> float | None:
        return self.values.pop(0)


def to_bytes(image: Tensor) -> Tensor:
    """Return the 8-bit image behind a normalized one; exact, because the transforms end in k / 255."""
    values = (image * STD + MEAN) * 255
    rounded = values.round()
    assert float((values - rounded).abs().max()) < 1e-2
    return rounded.to(torch.uint8)


def draw_scene(draws: Draws, n: int, height: int, width: int) -> Tensor:
    """Draw smooth 8-bit images (N, 3, H, W)."""
    small = draws.uniform(n, 3, 4, 5)
    large = F.interpolate(small, size=(height, width), mode='bilinear', align_corners=True)
    return (large * 255).to(torch.uint8)


def record_labeled_views(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record the transform of labeled images for given scales, flips and blurs."""
    voc = reference.voc
    for k, (scale, flip, radius) in enumerate(LABELED_CASES):
        image = draw_scene(draws, 1, HEIGHT, WIDTH)[0]
        label = draws.regions(1, HEIGHT, WIDTH, [0, 1, 2, 255])[0]
        answers = iter([0.0, 0.0 if radius is None else 0.9, 0.9 if flip else 0.0])
        with (
            patched(voc, random=ScriptedRandom([scale, radius])),
            patched(torch, rand=lambda *args, answers=answers: torch.tensor([next(answers)])),
        ):
            out_image, out_label = voc.transform(
                Image.fromarray(image.permute(1, 2, 0).numpy()),
                Image.fromarray(label.to(torch.uint8).numpy()),
                None,
                crop_size=CROP,
                scale_size=(0.5, 1.5),
                augmentation=True,
            )
        vectors.put_all(
            f'labeled_view.{k}',
            image=image,
            label=label,
            scale=scale,
            crop=CROP,
            crop_start=RandomCrop.drawn[-1],
            flip=flip,
            blur_radius=0.0 if radius is None else radius,
            out_image=to_bytes(out_image),
            out_label=out_label[0],
        )


def store_stage(vectors: Vectors, name: str, values: Sequence) -> None:
    """Store a stage of the strong view with its images in 8 bits."""
    image, *rest = values
    entries = dict(zip(KEYS[1:], rest, strict=True))
    vectors.put_all(name, image=torch.stack([to_bytes(one) for one in image]), **entries)


def record_strong_view(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record the stages of the unlabeled path: rescaled, mixed, final."""
    voc, name = reference.voc, 'as_released.strong_view'
    images = draw_scene(draws, IMAGES, SIDE, SIDE)
    labels = [draws.regions(IMAGES, SIDE, SIDE, [0, 1, 2, 3]) for _ in range(2)]
    confidences = [torch.round(draws.uniform(IMAGES, SIDE, SIDE) * 1023) / 1024 for _ in range(2)]
    confidences[0][0, 0, :4] = torch.tensor([0.97, 0.7, 1.0, 248 / 255])
    vectors.put_all(name, **dict(zip(KEYS, (images, *labels, *confidences), strict=True)))
    state = [(images.float() / 255 - MEAN) / STD, *labels, *confidences]

    scales = [0.5, 0.77, 1.37]
    RandomCrop.drawn.clear()
    with patched(voc, random=ScriptedRandom(scales)):
        state = voc.batch_transform_3(
            *state, crop_size=(SIDE, SIDE), scale_size=(0.5, 1.5), augmentation=False
        )
    vectors.put_exact(f'{name}.scale', np.array(scales))
    vectors.put(f'{name}.crop_start', list(RandomCrop.drawn))
    store_stage(vectors, f'{name}.rescaled', state)

    with local_values(voc.generate_cutout_mask) as seen:
        state = voc.generate_cut_gather_3(*state, mode='cutmix')
    vectors.put(f'{name}.boxes', drawn_boxes(seen))
    store_stage(vectors, f'{name}.mixed', state)

    flips = [1, 0, 1]
    answers = [0.9 if flip else 0.1 for flip in flips]
    with patched(voc, random=ScriptedRandom([1.0] * IMAGES)), patched(torch, rand=scripted_rand(answers)):
        state = voc.batch_transform_3(
            *state, crop_size=(SIDE, SIDE), scale_size=(1.0, 1.0), augmentation=True
        )
    vectors.put(f'{name}.flip', flips)
    store_stage(vectors, f'{name}.final', state)
