"""The value of a buffer on the host."""

import copy

import torch
from torch import nn

from allspark_mmseg.utils import HostValue

from .helpers.synchronization import no_waiting


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))
        self.on_host = HostValue()

    def count(self) -> int:
        value = self.on_host.read(self.steps)
        self.on_host.write(self.steps, value + 1)
        return value


def test_the_value_follows_its_own_changes_without_a_look_at_the_device():
    counter = Counter()
    assert counter.count() == 0
    with no_waiting('cpu'):
        assert [counter.count() for _ in range(3)] == [1, 2, 3]
    assert counter.steps == 4


def test_the_value_follows_all_other_changes():
    counter = Counter()
    for _ in range(5):
        counter.count()
    counter.steps.zero_()
    assert counter.count() == 0
    counter.load_state_dict({'steps': torch.tensor(7)})
    assert counter.count() == 7
    twin = copy.deepcopy(counter)
    counter.steps.fill_(100)
    assert (twin.count(), counter.count()) == (8, 100)
    counter.double().steps = torch.tensor(3)  # another tensor
    assert counter.count() == 3
