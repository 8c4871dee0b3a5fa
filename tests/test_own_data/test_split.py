"""The validation part: near-duplicates on one side, every class on both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allspark_mmseg.own_data.groups import find_groups
from allspark_mmseg.own_data.split import hold_out


def bits(rng: np.random.Generator, base: int | None = None, flipped: int = 0) -> int:
    value = int(rng.integers(0, 2**63)) if base is None else base
    for position in rng.choice(64, flipped, replace=False):
        value ^= 1 << int(position)
    return value


def text(value: int) -> str:
    return f'{value:016x}'


def test_similar_images_are_in_one_group():
    rng = np.random.default_rng(0)
    first = bits(rng)
    hashes = {'a.jpg': text(first), 'b.jpg': text(bits(rng, first, 6)), 'c.jpg': text(bits(rng, first, 20))}
    assert find_groups(list(hashes), hashes) == [['a.jpg', 'b.jpg'], ['c.jpg']]


@pytest.mark.parametrize(('change', 'is_video'), [(18, True), (32, False)])
def test_a_sequence_is_a_video_if_neighbors_are_more_similar_than_others(change, is_video):
    rng = np.random.default_rng(1)
    hashes, value = {}, bits(rng)
    for number in range(40):
        hashes[f'clip_{number:03d}.jpg'] = text(value)
        value = bits(rng, value, change)
    hashes['clip_900.jpg'] = text(value)  # after a gap
    groups = find_groups(list(hashes), hashes)
    assert (len(groups) == 2) == is_video and (len(groups) > 30) == (not is_video)


def test_without_hashes_the_names_decide():
    names = ['a_1.jpg', 'a_2.jpg', 'a_3.jpg', 'a_50.jpg', 'b_2.jpg', 'x.jpg']
    assert find_groups(names, {}) == [names[:3], ['a_50.jpg'], ['b_2.jpg'], ['x.jpg']]


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[list[str]], dict[str, list[int]]]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=20).filter(lambda sizes: sum(sizes) > 1))
    groups = [[f'{group}_{index}' for index in range(size)] for group, size in enumerate(sizes)]
    found = st.lists(st.integers(0, 4), unique=True, max_size=4)
    return groups, {path: draw(found) for group in groups for path in group}


@settings(max_examples=60, deadline=None)
@given(data_sets())
def test_properties(data):
    groups, classes = data
    total = sum(map(len, groups))
    chosen = set(hold_out(groups, classes))
    assert 0 < len(chosen) < total
    for group in groups:
        if 2 * len(group) <= total:
            assert chosen.isdisjoint(group) or chosen.issuperset(group)
    whole = all(2 * len(group) <= total for group in groups)
    for label in range(5):
        holders = [group for group in groups if any(label in classes[path] for path in group)]
        if whole and len(holders) >= 2:
            # training never loses a class, unless the only choice left is one group
            rest = [path for group in groups for path in group if path not in chosen]
            assert any(label in classes[path] for path in rest) or len(groups) == 2


def test_a_fifth_with_every_class():
    rng = np.random.default_rng(0)
    groups = [[f'{number}'] for number in range(100)]
    classes = {group[0]: [0, *([1] if number < 5 else []), *([2] if rng.random() < 0.3 else [])]
               for number, group in enumerate(groups)}  # fmt: skip
    chosen = hold_out(groups, classes)
    assert 18 <= len(chosen) <= 22
    count = {label: sum(label in classes[path] for path in chosen) for label in range(3)}
    every = sum(2 in found for found in classes.values())
    assert count[1] == 1 and abs(count[2] - 0.2 * every) <= 2
    assert hold_out(groups, classes) == chosen


def test_one_video_is_cut_at_its_end():
    video = [f'{number:02d}' for number in range(10)]
    assert hold_out([video], {path: [0] for path in video}) == video[-2:]
