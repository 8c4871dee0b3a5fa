"""The parts of S4Former: ranking, shuffle and attention bias."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allspark_mmseg.methods.s4former.class_ranking import negative_class_ranking
from allspark_mmseg.methods.s4former.patch_attention import patch_adaptive_bias, unconfident_share
from allspark_mmseg.methods.s4former.patch_shuffle import PatchShuffle, shuffle, unshuffle

from ..helpers.s4former import naive_ranking


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.floats(0.1, 30), st.integers(0, 99))
def test_the_ranking_is_the_formula(classes, scale, seed):
    torch.manual_seed(seed)
    student, teacher = (scale * torch.randn(2, classes, 3, 4, dtype=torch.float64) for _ in range(2))
    target = torch.randint(classes, (2, 3, 4))
    target[torch.rand(2, 3, 4) < 0.3] = 255
    loss = negative_class_ranking(student, teacher, target)
    torch.testing.assert_close(loss, naive_ranking(student, teacher, target), rtol=1e-10, atol=1e-15)


def test_the_ranking_gives_the_pseudo_class_and_the_teacher_no_gradient():
    student, teacher = (torch.randn(1, 5, 4, 4).requires_grad_() for _ in range(2))
    target = torch.randint(5, (1, 4, 4))
    negative_class_ranking(student, teacher, target).backward()
    own = torch.zeros_like(student, dtype=torch.bool).scatter_(1, target[:, None], True)
    assert (student.grad[own] == 0).all() and (student.grad[~own] != 0).all()
    assert teacher.grad is None


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 99),
)
def test_shuffle_moves_whole_blocks_and_unshuffle_is_its_inverse(grid, cells, seed):
    torch.manual_seed(seed)
    images = torch.rand(3, 2, grid[0] * cells[0], grid[1] * cells[1])
    permutation = PatchShuffle(prob=0.7).draw(3, grid)
    shuffled = shuffle(images, permutation, grid)
    for image in range(3):
        for place, source in enumerate(permutation[image].tolist()):

            def block(of: torch.Tensor, index: int, image=image) -> torch.Tensor:
                row, column = divmod(index, grid[1])
                rows = slice(row * cells[0], (row + 1) * cells[0])
                return of[image, :, rows, column * cells[1] : (column + 1) * cells[1]]

            assert torch.equal(block(shuffled, place), block(images, source))
    assert torch.equal(unshuffle(shuffled, permutation, grid), images)


def test_permutations_are_uniform_for_a_share_of_the_images():
    drawn = PatchShuffle(prob=0.25).draw(24000, (1, 3))
    identity = (drawn == torch.arange(3)).all(1).float().mean()
    assert identity == pytest.approx(0.75 + 0.25 / 6, abs=0.012)
    others = drawn[(drawn != torch.arange(3)).any(1)]
    counts = torch.stack([(others == other).all(1).sum() for other in others.unique(dim=0)]).float()
    assert len(counts) == 5
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 4 + 4 * math.sqrt(8)
    assert torch.equal(PatchShuffle(prob=0).draw(50, (2, 2)), torch.arange(4).expand(50, 4))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(block_size=0), 'block_size is 0'),
        (dict(block_size=16.0), r'block_size is 16\.0'),
        (dict(prob=1.5), r'prob is 1\.5'),
    ],
)
def test_arguments_of_the_shuffle_are_checked(arguments, message):
    with pytest.raises(ValueError, match=f'PatchShuffle: {message}, expected'):
        PatchShuffle(**arguments)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 4), st.integers(1, 5)), st.floats(0, 50), st.integers(0, 99))
def test_the_bias_is_the_formula_for_oblong_images_too(grid, strength, seed):
    torch.manual_seed(seed)
    confident = torch.rand(2, 4 * grid[0], 4 * grid[1]) < torch.rand(2, 1, 1)
    unconfident = unconfident_share(confident, 4)
    patches = grid[0] * grid[1]
    bias = patch_adaptive_bias(unconfident, strength)
    assert bias.shape == (2, 1, 1 + patches, 1 + patches)
    for image in range(2):
        share = [
            1 - confident[image, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].double().mean().item()
            for i in range(grid[0])
            for j in range(grid[1])
        ]
        free = sorted(range(patches), key=lambda i: (round(share[i], 9), i))[: patches // 2]
        for query in range(1 + patches):
            row = [0.0] + [strength * s for s in share]
            expected = torch.tensor(row if query - 1 not in free else [0.0] * len(row))
            torch.testing.assert_close(bias[image, 0, query], expected, rtol=1e-5, atol=1e-6)
