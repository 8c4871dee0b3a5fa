"""The strong view of CSS: rescaling against PIL, mixing and flipping; and the loss on its targets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from allspark_mmseg.methods.css import Rescale, Targets, classifier_loss, flip_horizontally
from allspark_mmseg.methods.css.strong_view import make_strong_view

from ..helpers.tiny_models import CLASSES, CROP


def pil_rescaled(image: np.ndarray, label: np.ndarray, resized: tuple, corner: tuple) -> tuple:
    """The release's steps, by PIL and NumPy: resize, pad by reflection, crop."""
    height, width = image.shape[:2]
    image = np.asarray(Image.fromarray(image).resize(resized[::-1], Image.BILINEAR))
    label = np.asarray(Image.fromarray(label).resize(resized[::-1], Image.NEAREST))
    pad = [(0, max(side - has, 0)) for side, has in zip((height, width), resized, strict=True)]
    image = np.pad(image, [*pad, (0, 0)], mode='reflect')
    label = np.pad(label, pad, constant_values=255)
    window = slice(corner[0], corner[0] + height), slice(corner[1], corner[1] + width)
    return image[window], label[window]


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(4, 24), st.integers(4, 24)),
    st.lists(st.floats(0.3, 2.2), min_size=1, max_size=3),
    st.integers(0, 10**6),
)
def test_rescaling_equals_that_of_pil(size, scales, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(scales), *size, 3), dtype=np.uint8)
    labels = rng.integers(0, 9, (len(scales), *size), dtype=np.uint8)
    resized = [tuple(max(int(scale * side), 1) for side in size) for scale in scales]
    corner = [
        tuple(int(rng.integers(max(has - side, 0) + 1)) for side, has in zip(size, new, strict=True))
        for new in resized
    ]
    rescale = Rescale(size, torch.tensor(resized), torch.tensor(corner))
    found = rescale.image(torch.from_numpy(images).permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1)
    label = rescale.label(torch.from_numpy(labels).long()[:, None])[:, 0]
    confidence = rescale.confidence(torch.from_numpy(labels).float()[:, None] + 1)[:, 0]
    for i in range(len(scales)):
        image, expected = pil_rescaled(images[i], labels[i], resized[i], corner[i])
        assert np.abs(found[i].numpy() - image).max() <= 1.02  # PIL rounds rows, then columns
        rows, columns = (
            (2 * np.arange(at, at + side) + 1) * side % (2 * new) > 0
            for at, side, new in zip(corner[i], size, resized[i], strict=True)
        )
        clear = np.ix_(rows, columns)  # exactly between two pixels PIL's rounding decides
        np.testing.assert_array_equal(label[i].numpy()[clear], expected[clear])
        np.testing.assert_array_equal(confidence[i].numpy() == 0, label[i].numpy() == 255)
        named = label[i].numpy() != 255
        np.testing.assert_array_equal(confidence[i].numpy()[named], label[i].numpy()[named] + 1.0)


def test_factors_and_corners_are_uniform():
    torch.manual_seed(0)
    size = (40, 60)
    rescale = Rescale.draw(4000, size, (0.5, 1.5))
    height, width = rescale.resized.unbind(1)
    assert (height.min(), height.max()) == (20, 59) and (width.min(), width.max()) == (30, 89)
    assert (height / 40 - width / 60).abs().max() < 1 / 30, 'one factor for both sides'
    assert height.double().mean() == pytest.approx(39.5, abs=0.8)
    room = torch.stack([(height - 40).clamp(min=0), (width - 60).clamp(min=0)], 1)
    assert (rescale.corner >= 0).all() and (rescale.corner <= room).all()
    share = (rescale.corner / room.clamp(min=1))[room[:, 0] > 10]
    assert share.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    assert (rescale.corner == room)[room[:, 0] > 10].any(0).all(), 'the last corner is never drawn'
    whole = Rescale.draw(3, size, (1.0, 1.0))
    images = torch.randn(3, 2, *size)
    torch.testing.assert_close(whole.image(images), images)


def test_only_the_chosen_images_are_flipped():
    maps = torch.randn(3, 2, 4, 5)
    chosen = torch.tensor([True, False, True])
    found = flip_horizontally(maps, chosen)
    assert torch.equal(found[1], maps[1])
    assert torch.equal(found[::2], maps[::2].flip(3))


def test_the_strong_view_augments_images_and_targets_alike():
    """Images whose color is their label stay so through all of it."""
    for mix in ('cutmix', 'classmix', None):
        label = torch.randint(CLASSES, (4, 1, 5, 5)).repeat_interleave(13, 2).repeat_interleave(13, 3)
        images, targets = make_strong_view(
            label.float().expand(-1, 3, -1, -1), Targets(label, label / 10), (0.8, 1.6), mix, CLASSES
        )
        named = targets.label[:, 0] != 255
        shown = images[:, 0].round().long()
        assert (shown == targets.label[:, 0])[named].float().mean() > 0.9, mix  # but at the edges
        torch.testing.assert_close(targets.confidence[:, 0][named], targets.label[:, 0][named] / 10)
        assert not targets.confidence[:, 0][~named].any()
    targets = Targets(label * 0, label / 10 + 0.1)
    images, targets = make_strong_view(torch.ones(4, 3, *CROP), targets, (1.0, 1.0), 'cutout', CLASSES)
    cut = targets.label[:, 0] == 255
    assert cut.flatten(1).float().mean(1).tolist() == pytest.approx([0.5] * 4, abs=0.02)
    assert not images[:, 0][cut].any() and not targets.confidence[:, 0][cut].any()
    torch.testing.assert_close(images[:, 0][~cut], torch.ones(int((~cut).sum())))


@pytest.mark.parametrize('average_over', ['positive', 'labeled'])
def test_the_classifier_loss_is_the_formula(average_over):
    logits = torch.randn(3, CLASSES, 6, 5, dtype=torch.float64) * 3
    label = torch.randint(CLASSES, (3, 6, 5))
    label[torch.rand(3, 6, 5) < 0.3] = 255
    label[2] = 255
    confidence = torch.rand(3, 6, 5).masked_fill(label == 255, 0)
    label[0, 0, 0], logits[0, :, 0, 0] = 1, torch.tensor([-900.0, 900, -900, -900])  # loss exactly 0
    total, count = 0.0, 0
    for b, i, j in np.ndindex(3, 6, 5):
        if label[b, i, j] == 255:
            continue
        weight = (confidence[b] >= 0.7).sum().item() / (label[b] != 255).sum().item()
        loss = -logits[b, :, i, j].log_softmax(0)[label[b, i, j]].item()
        total += weight * loss
        count += average_over == 'labeled' or loss > 0
    found = classifier_loss(logits, label, confidence, 0.7, average_over)
    assert found.item() == pytest.approx(total / count, rel=1e-6)
