"""CutMix and ClassMix: the distribution of boxes and masks, and pasting of images and pseudo-labels."""

import math
import random
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from allspark_mmseg.mixing import (
    ClassMix,
    CutMix,
    HalfAreaBoxes,
    MixSource,
    cutmix_views,
    paste,
    paste_labels,
)
from allspark_mmseg.pseudo_label import PseudoLabel


def literal_box(side: int, rng: random.Random) -> tuple[int, int, int, int]:
    """The released loop: top, left, height, width."""
    area = rng.uniform(0.02, 0.4) * side * side
    while True:
        aspect = rng.uniform(0.3, 1 / 0.3)
        width, height = int(math.sqrt(area / aspect)), int(math.sqrt(area * aspect))
        left, top = rng.randrange(side), rng.randrange(side)
        if left + width <= side and top + height <= side:
            return top, left, height, width


def corners_and_extents(boxes: torch.Tensor) -> torch.Tensor:
    """(N, 4) int64: top, left, height, width of each image's box; it must be one, and filled."""
    rows, columns = boxes.any(2), boxes.any(1)
    assert torch.equal(boxes, rows[:, :, None] & columns[:, None])
    found = []
    for line in (rows, columns):
        start, extent = line.int().argmax(1), line.sum(1)
        assert torch.equal(extent, line.shape[1] - line.int().flip(1).argmax(1) - start), 'a gap'
        found += [start, extent]
    return torch.stack([found[0], found[2], found[1], found[3]], 1)


def many(cutmix: CutMix, count: int, size: tuple[int, int], chunk: int = 400) -> torch.Tensor:
    """(count, 4): the boxes of images that have one."""
    drawn = (cutmix.draw(chunk, size) for _ in range(count // chunk))
    return torch.cat([corners_and_extents(boxes[boxes.flatten(1).any(1)]) for boxes in drawn])


def test_boxes_have_the_distribution_of_the_released_loop():
    side, count = 321, 3200
    rng = random.Random(0)
    expected = torch.tensor([literal_box(side, rng) for _ in range(8 * count)], dtype=torch.float64)
    found = many(CutMix(prob=1.0), count, (side, side)).double()
    assert len(found) == count
    # Kolmogorov and Smirnov: chance exceeds this once in 1000 times
    limit = 1.95 * math.sqrt(1 / len(found) + 1 / len(expected))
    for name, of in dict(
        top=lambda box: box[:, 0],
        left=lambda box: box[:, 1],
        height=lambda box: box[:, 2],
        width=lambda box: box[:, 3],
        area=lambda box: box[:, 2] * box[:, 3],
        aspect=lambda box: box[:, 2] / box[:, 3],
        bottom=lambda box: box[:, 0] + box[:, 2],
        right=lambda box: box[:, 1] + box[:, 3],
    ).items():
        ours, theirs = of(found).sort().values, of(expected).sort().values
        at = torch.cat([ours, theirs])
        distance = (
            torch.searchsorted(ours, at, right=True) / len(ours)
            - torch.searchsorted(theirs, at, right=True) / len(theirs)
        ).abs()
        assert distance.max() < limit, f'{name}: {distance.max():.4f} apart, {limit:.4f} allowed'
    height, width = found[:, 2], found[:, 3]
    assert (height * width).mean() / side**2 == pytest.approx(0.208, abs=0.005)
    assert (height > width).double().mean() == pytest.approx(0.73, abs=0.02)
    assert (height / width).mean() == pytest.approx(1.62, abs=0.04)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.tuples(st.floats(0.1, 8), st.floats(0.1, 8)).map(sorted),
    st.integers(0, 99),
)
def test_boxes_lie_inside_and_have_an_area_and_aspect_asked_for(count, size, area, aspect, seed):
    torch.manual_seed(seed)
    boxes = CutMix(prob=1.0, area=tuple(area), aspect=tuple(aspect)).draw(count, size)
    assert boxes.shape == (count, *size)
    assert boxes.dtype == torch.bool
    for top, left, height, width in corners_and_extents(boxes[boxes.flatten(1).any(1)]).tolist():
        assert top + height <= size[0] and left + width <= size[1]
        # some area and aspect in the ranges give exactly these whole numbers
        pixels = size[0] * size[1]
        assert height * width <= area[1] * pixels * (1 + 1e-5)
        assert (height + 1) * (width + 1) > area[0] * pixels * (1 - 1e-5)
        assert height / (width + 1) < aspect[1] * (1 + 1e-5)
        assert (height + 1) / width > aspect[0] * (1 - 1e-5)


def test_in_an_oblong_image_the_area_is_a_share_of_it_and_the_aspect_in_pixels():
    boxes = many(CutMix(prob=1.0, area=(0.1, 0.1), aspect=(2.0, 2.0)), 400, (40, 90))
    # 360 pixels, 26.8 x 13.4
    assert boxes[:, 2:].unique(dim=0).tolist() == [[26, 13]]
    assert (boxes[:, 0].min(), boxes[:, 0].max()) == (0, 14)
    assert boxes[:, 1].min() < 5 and 72 < boxes[:, 1].max() <= 77


def test_all_corners_where_the_box_fits_are_equally_likely():
    size = (9, 13)
    boxes = many(CutMix(prob=1.0, area=(12.5 / 117, 12.6 / 117), aspect=(0.751, 0.752)), 6000, size)
    assert boxes[:, 2:].unique(dim=0).tolist() == [[3, 4]]
    counts = torch.zeros(7, 10).index_put_((boxes[:, 0], boxes[:, 1]), torch.ones(()), accumulate=True)
    expected = len(boxes) / 70
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 69 + 4 * math.sqrt(2 * 69)
    # to the last row and column
    assert CutMix(prob=1.0, area=(1 / 20, 1 / 20), aspect=(1.0, 1.0)).draw(400, (4, 5)).any(0).all()


def test_a_share_prob_of_the_images_gets_a_box():
    for prob in (0.5, 0.2):
        boxed = CutMix(prob=prob).draw(3000, (20, 20)).flatten(1).any(1)
        assert boxed.sum() == pytest.approx(3000 * prob, abs=4 * math.sqrt(3000 * prob * (1 - prob)))
        together = (boxed[1:] & boxed[:-1]).float().mean()  # image by image, not batch by batch
        assert together == pytest.approx(prob**2, abs=0.04)
    assert not CutMix(prob=0.0).draw(300, (20, 20)).any()
    assert CutMix(prob=1.0).draw(300, (20, 20)).flatten(1).any(1).all()


def test_default_ranges_are_the_published_ones():
    assert vars(CutMix()) == dict(prob=0.5, area=(0.02, 0.4), aspect=(0.3, 1 / 0.3))


def test_boxes_that_cannot_fit_are_not_drawn():
    assert not CutMix(prob=1.0).draw(5, (1, 1)).any()
    assert CutMix(prob=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0)).draw(5, (1, 1)).all()
    assert not CutMix(prob=1.0, area=(0.4, 0.4), aspect=(1.0, 1.0)).draw(5, (2, 200)).any()
    assert CutMix().draw(0, (8, 9)).shape == (0, 8, 9)


def test_boxes_follow_from_the_seed():
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return CutMix(prob=1.0).draw(4, (33, 40))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    first, second = draw(1)[:2]
    assert not torch.equal(first, second)


class Dispatched(TorchDispatchMode):
    """Counts what PyTorch is asked to do, and notes what makes a device wait for numbers of the host."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    'draw',
    [
        lambda count: CutMix().draw(count, (40, 50)),
        lambda count: HalfAreaBoxes(prob=0.5).draw(count, (40, 50)),
        lambda count: ClassMix(3).draw(torch.ones(count, 40, 50, dtype=torch.int64)),
    ],
)
def test_a_batch_needs_as_many_operations_as_an_image(draw):
    asked = {}
    for count in (1, 16):
        with Dispatched() as dispatched:
            draw(count)
        asked[count] = dispatched.names
    assert asked[1] == asked[16]
    waiting = ('lift_fresh', '_local_scalar_dense', 'nonzero')
    assert not [name for name in asked[1] if any(word in name for word in waiting)]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(prob=1.5), r'prob is 1.5, expected a probability in \[0, 1\]'),
        (dict(prob=-0.1), r'prob is -0.1, expected a probability in \[0, 1\]'),
        (dict(prob=float('nan')), r'prob is nan, expected a probability in \[0, 1\]'),
        (dict(area=(0.4, 0.02)), r'area is \(0.4, 0.02\), expected an ascending pair within \[0, 1\]'),
        (dict(area=(0.0, 1.2)), r'area is \(0.0, 1.2\), expected an ascending pair within \[0, 1\]'),
        (dict(area=(-0.1, 0.2)), r'area is \(-0.1, 0.2\), expected an ascending pair within \[0, 1\]'),
        (dict(aspect=(0.0, 1.0)), r'aspect is \(0.0, 1.0\), expected an ascending pair above 0'),
        (dict(aspect=(2.0, 1.0)), r'aspect is \(2.0, 1.0\), expected an ascending pair above 0'),
    ],
)
def test_impossible_ranges_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f'CutMix: {message}'):
        CutMix(**arguments)
    CutMix(prob=0.0, area=(0.0, 1.0), aspect=(1.0, 1.0))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bool, torch.int64, torch.uint8])
@pytest.mark.parametrize('channels', [(), (3,)])
def test_paste_replaces_the_pixels_of_the_boxes(dtype, channels):
    base, other = (torch.randint(2, (2, *channels, 5, 6)).to(dtype) for _ in range(2))
    kept = base.clone(), other.clone()
    boxes = CutMix(prob=1.0).draw(2, (5, 6))
    boxes[0, 1, 2:4] = True
    mixed = paste(base, other, boxes)
    assert mixed.dtype == dtype
    for image in range(2):
        for row in range(5):
            for column in range(6):
                source = other if boxes[image, row, column] else base
                assert torch.equal(mixed[image, ..., row, column], source[image, ..., row, column])
    assert torch.equal(base, kept[0]) and torch.equal(other, kept[1])


def test_all_attributes_of_a_pseudo_label_are_pasted():
    def labels() -> PseudoLabel:
        made = PseudoLabel.from_logits(3 * torch.randn(2, 4, 9, 8), 0.7, torch.rand(2, 9, 8) < 0.3)
        return replace(made, weight=torch.rand(2, 9, 8))

    base, other = labels(), labels()
    boxes = torch.zeros(2, 9, 8, dtype=torch.bool)
    boxes[0, 2:6, 1:5] = boxes[1, :, 4:] = True
    mixed = paste_labels(base, other, boxes)
    for field in fields(PseudoLabel):
        of_mixed, of_base, of_other = (getattr(each, field.name) for each in (mixed, base, other))
        assert of_mixed.dtype == of_base.dtype
        if of_base.ndim == 4:
            of_mixed, of_base, of_other = (each.movedim(1, -1) for each in (of_mixed, of_base, of_other))
        assert torch.equal(of_mixed[boxes], of_other[boxes]), field.name
        assert torch.equal(of_mixed[~boxes], of_base[~boxes]), field.name
        assert not torch.equal(of_base[boxes], of_other[boxes]), field.name
    # one consistent pseudo-label again
    again = replace(PseudoLabel.from_logits(mixed.logits, 0.7, ~mixed.image_mask), weight=mixed.weight)
    assert all(torch.equal(getattr(again, f.name), getattr(mixed, f.name)) for f in fields(PseudoLabel))


def test_half_area_boxes_match_both_releases(golden):
    def height_of(width: int, size: tuple[int, int]) -> int:
        return round(size[0] * size[1] / (2 * width))  # Python, too, rounds halves to even

    for key, boxes in golden('s4former').items():
        if key.startswith('cutmix.draws.'):
            size = tuple(int(side) for side in key.rpartition('.')[2].split('x'))
            left, top, right, bottom = boxes.long().T
            recorded = torch.stack([top, left, bottom - top, right - left], 1)
            drawn = many(HalfAreaBoxes(), 400, size, chunk=100)
            for found in (recorded, drawn):
                for y, x, height, width in found.tolist():
                    assert size[1] // 2 + 1 <= width <= size[1] - 1
                    assert height == height_of(width, size)
                    assert y + height <= size[0] and x + width <= size[1]
            limit = 1.95 * math.sqrt(1 / len(drawn) + 1 / len(recorded))
            for column in range(4):
                ours, theirs = (each[:, column].double().sort().values for each in (drawn, recorded))
                at = torch.cat([ours, theirs])
                shares = [torch.searchsorted(each, at, right=True) / len(each) for each in (ours, theirs)]
                assert (shares[0] - shares[1]).abs().max() < limit, (key, column)
    vectors = golden('css')
    for size, low, high, width, box in zip(
        *(
            vectors[f'cut_box.{name}'].tolist()
            for name in ('size', 'width_low', 'width_high', 'width', 'box')
        ),
        strict=True,
    ):
        assert (int(low), high) == (size[1] // 2 + 1, size[1])
        assert box[1] - box[0] == height_of(width, size)


def test_half_area_boxes_reach_every_position_that_fits():
    boxes = many(HalfAreaBoxes(), 3000, (5, 6), chunk=100)
    shapes = {4: 4, 5: 3}  # width -> height; 15 / 4 and 15 / 5
    places = {(y, x, h, w) for w, h in shapes.items() for y in range(6 - h) for x in range(7 - w)}
    counts = dict.fromkeys(places, 0)
    for place in boxes.tolist():
        counts[tuple(place)] += 1
    expected = {place: 1500 / sum(other[3] == place[3] for other in places) for place in places}
    chi_square = sum((counts[place] - expected[place]) ** 2 / expected[place] for place in places)
    assert chi_square < len(places) + 4 * math.sqrt(2 * len(places))


def test_half_area_boxes_are_drawn_for_all_images_of_a_batch_or_none():
    cutmix = HalfAreaBoxes(prob=0.3)
    boxed = torch.stack([cutmix.draw(4, (8, 9)).flatten(1).any(1) for _ in range(1000)])
    assert torch.equal(boxed.any(1), boxed.all(1))
    assert boxed[:, 0].sum() == pytest.approx(300, abs=60)
    for prob in (-0.1, 1.1, float('nan')):
        with pytest.raises(ValueError, match=f'HalfAreaBoxes: prob is {prob}'):
            HalfAreaBoxes(prob)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_classmix_replaces_whole_classes_and_keeps_half(num_classes, count, seed):
    torch.manual_seed(seed)
    labels = torch.randint(num_classes + 1, (count, 5, 7))
    labels[labels == num_classes] = 255
    masks = ClassMix(num_classes).draw(labels)
    assert masks.shape == labels.shape and masks.dtype == torch.bool
    for mask, label in zip(masks, labels, strict=True):
        values = label.unique()
        pasted = [value.item() for value in values if mask[label == value].all()]
        kept = [value.item() for value in values if not mask[label == value].any()]
        assert len(pasted) + len(kept) == len(values), 'part of a class'
        assert len(kept) == len(values) // 2


def test_classmix_keeps_all_classes_equally_often():
    labels = torch.tensor([0, 2, 3, 255]).repeat(1500, 1, 1)
    kept = ~ClassMix(4).draw(labels)[:, 0]
    torch.testing.assert_close(kept.float().mean(0), torch.full((4,), 0.5), rtol=0, atol=0.06)
    assert len(kept.unique(dim=0)) == 6, 'every pair'


def test_pasting_with_recorded_masks_matches_both_releases(golden):
    vectors = golden('s4former')
    image = vectors['cutmix.image'].float()
    boxes = torch.zeros(vectors['cutmix.label'].shape, dtype=torch.bool)
    for box, (left, top, right, bottom) in zip(boxes, vectors['cutmix.boxes'].tolist(), strict=True):
        box[top:bottom, left:right] = True
    assert torch.equal(paste(image, image.roll(-1, 0), boxes), vectors['cutmix.image_mixed'].float())
    label = vectors['cutmix.label']
    assert torch.equal(paste(label, label.roll(-1, 0), boxes), vectors['cutmix.label_mixed'])

    vectors = golden('css')
    label = vectors['mixing.label_cls'].long()
    kept = vectors['mixing.classmix.kept'].bool()  # of -1, 0, 1, ...
    masks = {'classmix': ~kept.gather(1, label.flatten(1) + 1).view_as(label)}
    for name in ('cutmix', 'cutout'):
        masks[name] = torch.zeros(label.shape, dtype=torch.bool)
        for mask, (y, x, h, w) in zip(masks[name], vectors[f'mixing.{name}.boxes'].tolist(), strict=True):
            mask[y : y + h, x : x + w] = True
    compared = 0
    for name, mask in masks.items():
        for part, empty in (('image', 0), ('label_cls', -1), ('label_rep', -1), ('conf_cls', 0)):
            if f'mixing.{name}.{part}' in vectors:
                own = vectors[f'mixing.{part}']
                other = torch.full_like(own, empty) if name == 'cutout' else own.roll(-1, 0)
                assert torch.equal(paste(own, other, mask), vectors[f'mixing.{name}.{part}']), (name, part)
                compared += 1
    assert compared >= 10


@pytest.mark.parametrize('same_image', [False, True])
@pytest.mark.parametrize('num_views', [1, 2])
def test_cutmix_mixes_pseudo_labels_like_their_images(same_image, num_views):
    """The value of each pixel is its class."""
    size, num_classes = (12, 10), 4

    def labeled_images() -> tuple[torch.Tensor, PseudoLabel, torch.Tensor]:
        classes = torch.randint(num_classes, (3, *size))
        padding = torch.rand(3, *size) < 0.2
        logits = 5 * torch.nn.functional.one_hot(classes, num_classes).movedim(-1, 1).float()
        images = classes[:, None].float().repeat(1, 3, 1, 1)
        return images, PseudoLabel.from_logits(logits, 0.3, padding), padding

    images, pseudo, padding = labeled_images()
    other_images, other_pseudo, other_padding = labeled_images()
    boxes = [CutMix(prob=1.0, area=(0.3, 0.4)).draw(3, size) for _ in range(num_views)]
    source = MixSource([other_images] * num_views, other_pseudo) if same_image else None
    mixed, mixed_pseudo = cutmix_views([images] * num_views, pseudo, boxes, source)
    assert len(mixed) == len(mixed_pseudo) == num_views
    other = other_images if same_image else images.flip(0)
    other_padding = other_padding if same_image else padding.flip(0)
    changed = []
    for picture, label in zip(mixed, mixed_pseudo, strict=True):
        for channel in picture.unbind(1):
            assert torch.equal(channel.long(), label.label)
        assert torch.equal(label.target, label.label.masked_fill(~label.valid, 255))
        assert label.logits.shape == (3, 0, *size)
        changed.append(picture[:, 0] != images[:, 0])
        assert torch.equal(picture[:, 0][changed[-1]], other[:, 0][changed[-1]])
        assert torch.equal(label.image_mask[changed[-1]], ~other_padding[changed[-1]])
        assert changed[-1][0].any() and changed[-1][2].any()
        # in reverse order, the second of three images is its own source
        assert changed[-1][1].any() == same_image
    assert num_views == 1 or not torch.equal(*changed), 'each view has a box of its own'
