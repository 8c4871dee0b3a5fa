"""The class prototypes of CSS."""

import torch
import torch.nn.functional as F

from allspark_mmseg.methods.css import ClassPrototypes

from ..helpers.ranks import on_two_ranks
from ..helpers.tiny_models import same


def test_prototypes_follow_the_classes_present():
    kept = ClassPrototypes(3, 4, momentum=0.25)
    first, second = torch.randn(10, 4), torch.randn(10, 4)
    label = torch.tensor([0, 0, 2, 255, 2, 0, 255, 0, 2, 2])
    kept.update(first, label)
    assert kept.seen.tolist() == [True, False, True]
    torch.testing.assert_close(kept.value[0], first[label == 0].mean(0))
    assert not kept.value[1].any()
    kept.update(second, label.masked_fill(label == 2, 1))
    assert kept.seen.all()
    torch.testing.assert_close(
        kept.value[0], 0.75 * first[label == 0].mean(0) + 0.25 * second[label == 0].mean(0)
    )
    torch.testing.assert_close(kept.value[1], second[label == 2].mean(0))
    torch.testing.assert_close(kept.value[2], first[label == 2].mean(0))
    before = kept.value.clone()
    kept.update(first, torch.full_like(label, 255))
    assert torch.equal(kept.value, before)


def test_similarity_is_the_cosine():
    kept = ClassPrototypes(3, 4)
    kept.value[:2] = torch.randn(2, 4)
    z = torch.randn(2, 4, 3, 5)
    found = kept.similarity(z)
    expected = F.cosine_similarity(z[:, None], kept.value[:, :, None, None], dim=2)
    torch.testing.assert_close(found, expected)
    assert not found[:, 2].any()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(kept.similarity(z), found)


def _update_on_one_rank(rank: int) -> dict:
    kept = ClassPrototypes(3, 2)
    kept.update(torch.full((3, 2), float(rank + 1)), torch.tensor([[0, 0, 255], [0, 1, 1]][rank]))
    return kept.state_dict()


def test_prototypes_of_two_processes_are_equal(tmp_path):
    found = on_two_ranks(tmp_path, _update_on_one_rank)
    assert same(*found)
    assert found[0]['seen'].tolist() == [True, True, False]
    torch.testing.assert_close(found[0]['value'], torch.tensor([[4 / 3] * 2, [2, 2], [0, 0]]))
