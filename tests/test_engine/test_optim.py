"""Mixed precision, accumulation and checkpointing: what they must leave as it is."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from allspark_mmseg.engine import CompileBackboneHook

from ..helpers.tiny_models import CROP, batch, build_model, gradients, losses_in, same, tiny_segmentor

SGD = dict(type='SGD', lr=0.1)


def build_allspark(**backbone):
    segmentor = tiny_segmentor()
    segmentor['backbone'] = segmentor['backbone'] | backbone
    segmentor['decode_head'] = dict(
        type='allspark_mmseg.AllSparkHead',
        bottleneck=dict(in_channels=64, crop_size=CROP, dropout=0.0),
        decoder=segmentor['decode_head'],
    )
    torch.manual_seed(0)
    model = build_model(dict(type='allspark_mmseg.AllSpark', segmentor=segmentor)).train()
    model.memory_ready.fill_(True)
    return model


def memory_of(model) -> dict:
    return {name: value.clone() for name, value in model.memory.named_buffers()}


def test_bfloat16_training_is_close_and_keeps_its_state_in_float32():
    step = batch()
    found = {}
    for kind in ('OptimWrapper', 'allspark_mmseg.BFloat16OptimWrapper'):
        model = build_allspark()
        wrapper = build_optim_wrapper(model, dict(type=kind, optimizer=SGD))
        seen = []
        model.student.backbone.register_forward_hook(lambda *args, seen=seen: seen.append(args[-1][-1].dtype))
        with wrapper.optim_context(model):
            losses = model.loss(*step)
        before = {name: value.clone() for name, value in model.named_parameters()}
        wrapper.update_params(losses_in(losses))
        moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
        assert len(moved) > 0.9 * len(before)
        dtypes = {value.dtype for value in model.state_dict().values() if value.is_floating_point()}
        assert dtypes == {torch.float32}
        assert all(value.dtype == torch.float32 for name, value in losses.items() if 'loss' in name)
        found[kind] = losses, memory_of(model), seen
    (exact, memory, _), (mixed, mixed_memory, seen) = found.values()
    assert seen[-1] == torch.bfloat16, 'the backbone did not run in bfloat16'
    for name in exact:
        torch.testing.assert_close(mixed[name], exact[name], rtol=0.1, atol=0.05)
    assert mixed_memory['rows'].dtype == torch.float32
    close = torch.isclose(mixed_memory['rows'], memory['rows'], atol=0.2).float().mean()
    assert close > 0.8  # a few channels go to another class


def test_checkpointing_the_backbone_changes_nothing():
    step = batch()
    found = []
    for with_cp in (False, True):
        model = build_allspark(with_cp=with_cp)
        losses_in(model.loss(*step)).backward()
        found.append((gradients(model), memory_of(model)))
    assert found[0][0].keys() == found[1][0].keys()
    for name, gradient in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], gradient)
    assert same(found[0][1], found[1][1]), 'recomputation wrote to the memory'


@pytest.mark.parametrize('counts', [1, 3])
def test_accumulation_updates_the_memory_once_a_forward_pass(counts):
    model = build_allspark()
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=SGD, accumulative_counts=counts))
    wrapper.initialize_count_status(model, 0, 6)
    updates, original = [], model.memory.update
    model.memory.update = lambda *args: updates.append(1) or original(*args)
    stepped = 0
    for _ in range(3):
        before = copy.deepcopy(model.student.decode_head.decoder.conv_seg.weight)
        with wrapper.optim_context(model):
            losses = model.loss(*batch())
        wrapper.update_params(losses_in(losses))
        stepped += not torch.equal(before, model.student.decode_head.decoder.conv_seg.weight)
    assert len(updates) == 3
    assert stepped == 3 // counts


def test_the_compiled_backbone_trains_alike():
    step = batch()
    messages = []
    losses, states = [], []
    for compiled in (False, True):
        model = build_allspark()
        if compiled:
            runner = SimpleNamespace(model=model, logger=SimpleNamespace(info=messages.append))
            CompileBackboneHook(backend='eager', fullgraph=True).before_train(runner)
        torch.manual_seed(1)
        entries = model.loss(*step)
        losses_in(entries).backward()
        losses.append(losses_in(entries).detach())
        states.append(list(model.state_dict()))
    torch.testing.assert_close(*losses)
    assert states[0] == states[1]
    assert model.student.backbone._compiled_call_impl is not None
    assert 'compiled' in messages[0]
