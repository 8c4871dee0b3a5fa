"""The semantic memory against one write at a time."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allspark_mmseg.methods.allspark import SemanticMemory

from ..helpers.naive_memory import NaiveMemory


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 4),  # classes
    st.integers(1, 5),  # slots for each class, and channels of an image
    st.lists(st.integers(1, 4), min_size=1, max_size=4),  # images of each update
    st.booleans(),  # all channels of one class: more than it has slots
    st.integers(0, 2**31),
)
def test_memory_equals_one_write_at_a_time(num_classes, capacity, updates, one_class, seed):
    torch.manual_seed(seed)
    memory = SemanticMemory(num_classes, capacity, 2)
    naive = NaiveMemory(memory.rows)
    for images in updates:
        tokens = torch.randn(images, 2, capacity)
        classes = torch.randint(num_classes, (images, capacity))
        if one_class:
            classes.fill_(classes[0, 0])
        memory.update(tokens, classes)
        naive.update(tokens, classes)
        assert torch.equal(memory.rows, naive.rows)
        assert memory.pointer.tolist() == naive.pointer
        assert memory.written.tolist() == naive.written
    torch.testing.assert_close(memory.filled, torch.tensor(naive.written) / capacity)


def test_memory_reads_a_copy():
    memory = SemanticMemory(2, 3, 4)
    read = memory.read()
    assert torch.equal(read, memory.rows)
    before = read.clone()
    memory.update(torch.randn(1, 4, 3), torch.zeros(1, 3, dtype=torch.int64))
    assert torch.equal(read, before)
