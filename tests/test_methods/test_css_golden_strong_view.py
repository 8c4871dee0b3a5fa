"""The strong view of CSS against vectors of its release."""

import pytest
import torch

from allspark_mmseg.methods.css import Rescale, Targets, flip_horizontally
from allspark_mmseg.methods.css.strong_view import mix_with_next
from allspark_mmseg.mixing import paste

from ..helpers.css_golden import to_255
from ..helpers.golden import strip_prefix


def boxes_to_mask(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, H, W) bool of boxes (y, x, height, width)."""
    mask = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for one, (y, x, height, width) in zip(mask, boxes.tolist(), strict=True):
        one[y : y + height, x : x + width] = True
    return mask


def two_kinds(vectors: dict, kinds: tuple[str, ...] = ('cls', 'rep')) -> Targets:
    label = torch.stack([to_255(vectors[f'label_{kind}']) for kind in kinds], 1)
    return Targets(label, torch.stack([vectors[f'conf_{kind}'] for kind in kinds], 1))


@pytest.mark.parametrize('mix', ['cutmix', 'cutout', 'classmix'])
def test_mixing_matches_the_release(golden, mix):
    everything = strip_prefix(golden('css'), 'mixing.')
    expected = strip_prefix(everything, f'{mix}.')
    kinds = ('cls', 'rep') if 'label_rep' in expected else ('cls',)
    targets = two_kinds(everything, kinds)
    size = tuple(targets.label.shape[2:])
    if mix == 'classmix':
        kept = expected['kept'].bool()  # of -1, then of the classes
        index = targets.label[:, -len(kinds)].masked_fill(targets.label[:, -len(kinds)] == 255, -1) + 1
        pasted = ~kept.gather(1, index.flatten(1)).view_as(index)
    else:
        pasted = boxes_to_mask(expected['boxes'], size)
    images, found = mix_with_next(everything['image'], targets, pasted, cutout=mix == 'cutout')
    assert torch.equal(images, expected['image'])
    assert torch.equal(found.label, two_kinds(expected | dict(conf_rep=expected['conf_rep']), kinds).label)
    assert torch.equal(found.confidence, two_kinds(expected, kinds).confidence)


def test_the_partner_is_of_the_same_process(golden):
    """Ours is of the same process, so the first one's images are as released."""
    vectors = strip_prefix(golden('css'), 'as_released.mixing_two_ranks.')
    for rank in (0, 1):
        own, expected = (strip_prefix(vectors, f'rank{rank}.{part}') for part in ('', 'cutmix.'))
        targets = two_kinds(own)
        pasted = boxes_to_mask(expected['boxes'], tuple(targets.label.shape[2:]))
        images, _ = mix_with_next(own['image'], targets, pasted)
        assert torch.equal(images, expected['image']) == (rank == 0)
        partner = strip_prefix(vectors, 'rank0.')['image'].roll(-1, 0)
        assert torch.equal(paste(own['image'], partner, pasted), expected['image'])


def test_the_strong_view_matches_the_release_up_to_rounding(golden):
    """Labels and confidences as the release has them; images within the roundings to 8 bits of it."""
    vectors = strip_prefix(golden('css'), 'as_released.strong_view.')
    image, targets = vectors['image'].float(), two_kinds(vectors)
    size = tuple(image.shape[2:])
    resized = torch.stack([(vectors['scale'] * side).long() for side in size], 1)
    rescale = Rescale(size, resized, vectors['crop_start'].long())
    images = rescale.image(image)
    targets = Targets(rescale.label(targets.label), rescale.confidence(targets.confidence))
    pasted = boxes_to_mask(vectors['boxes'], size)
    stages = [('rescaled', images, targets)]
    stages.append(('mixed', *mix_with_next(images, targets, pasted)))
    flip = vectors['flip'].bool()
    _, images, targets = stages[-1]
    flips = [flip_horizontally(part, flip) for part in (images, targets.label, targets.confidence)]
    stages.append(('final', flips[0], Targets(*flips[1:])))
    for name, images, targets in stages:
        expected = strip_prefix(vectors, f'{name}.')
        assert torch.equal(targets.label, two_kinds(expected).label), name
        difference = targets.confidence - two_kinds(expected).confidence
        assert difference.min() >= 0 and difference.max() < 1 / 255, name  # the release rounds down
        # PIL rounds rows and columns, half a gray level each; the release cuts off up to one in either pass
        error = images - expected['image'].float()
        cut_off = 2 if name == 'final' else 1
        assert error.min() > -1 and error.max() < 1 + cut_off, f'{name}: {error.min()}, {error.max()}'
