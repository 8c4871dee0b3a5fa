"""AllSpark's method, head and warm-up; test_allspark_golden.py compares with the reference."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from allspark_mmseg.methods import MemoryWarmUpHook
from allspark_mmseg.methods.allspark import bottleneck as bottleneck_module

from ..helpers.method_contract import MethodContract
from ..helpers.tiny_models import (
    CLASSES,
    CROP,
    WIDTHS,
    batch,
    behind_bottleneck,
    build_model,
    losses_in,
    same,
    tiny_head,
    tiny_segmentor,
)

BOTTLENECK_ARGUMENTS = ('channels', 'num_heads', 'dropout', 'crop_size', 'grouping', 'memory_init')


def memory_of(model) -> dict:
    return {name: value.clone() for name, value in model.memory.named_buffers()}


class TestAllSpark(MethodContract):
    method = 'allspark_mmseg.AllSpark'
    views = ('weak', 'strong_1')
    hyper_parameters = dict(
        labeled_weight=0.7,
        unlabeled_weight=0.7,
        ignore_padding=True,
        threshold=0.5,
        unlabeled_view='strong_1',
        pseudo_keys='image',
        channels=32,
        num_heads=1,
        dropout=0.5,
        grouping='probabilities',
        memory_init='zeros',
    )

    def wrapped(self, segmentor: dict, **overrides) -> dict:
        chosen = {name: overrides[name] for name in BOTTLENECK_ARGUMENTS if name in overrides}
        return behind_bottleneck(segmentor, **chosen)

    def test_only_training_writes_the_memory(self):
        model = self.build()
        before = memory_of(model)
        inputs, data_samples = self.batch()
        model.make_pseudo_labels(inputs['weak'])
        model.eval().predict(inputs['weak'])
        model._forward(inputs['weak'])
        assert same(memory_of(model), before)
        model.train().loss(inputs, data_samples)
        after = memory_of(model)
        assert not torch.equal(after['rows'], before['rows'])
        assert after['written'].sum() > 0

    @pytest.mark.parametrize('ready', [False, True])
    def test_memory_is_written_in_warm_up_and_after_it(self, ready, monkeypatch):
        grouped = []
        original = bottleneck_module.group_channels
        monkeypatch.setattr(
            bottleneck_module, 'group_channels', lambda *args: grouped.append(original(*args)) or grouped[-1]
        )
        model = self.build()
        model.memory_ready.fill_(ready)
        steps = 3
        for _ in range(steps):
            entries = model.loss(*self.batch(1, 2))
        width = model.memory.rows.shape[1]
        counts = torch.stack([g.flatten() for g in grouped]).flatten().bincount(minlength=CLASSES)
        assert counts.sum() == steps * 2 * width
        torch.testing.assert_close(model.memory.written, counts.clamp(max=width))
        torch.testing.assert_close(model.memory.pointer, counts % width)
        torch.testing.assert_close(model.memory.filled, counts.clamp(max=width) / width)
        torch.testing.assert_close(entries['memory.filled'], model.memory.filled.mean())

    def test_memory_ready_decides_whether_labeled_images_attend_to_the_memory(self):
        step = self.batch()

        def supervised(ready: bool, other_memory: bool) -> torch.Tensor:
            model = self.build()
            model.memory_ready.fill_(ready)
            if other_memory:
                model.memory.rows.neg_()
            return losses_in(model.loss(*step), 'sup.').detach()

        assert torch.equal(supervised(False, False), supervised(False, True))
        assert not torch.equal(supervised(True, False), supervised(True, True))
        assert not torch.equal(supervised(False, False), supervised(True, False))

    def test_memory_ready_is_in_the_checkpoint(self):
        model, again = self.build(), self.build()
        model.memory_ready.fill_(True)
        again.load_state_dict(model.state_dict())
        assert bool(again.memory_ready)

    def test_pseudo_keys_decide_the_keys_of_pseudo_labeling(self):
        pair, single = torch.randn(2, 3, *CROP), torch.randn(1, 3, *CROP)
        by_batch, by_image = (self.build(pseudo_keys=keys) for keys in ('batch', 'image'))
        assert torch.equal(
            by_batch.make_pseudo_labels(single).logits, by_image.make_pseudo_labels(single).logits
        )
        logits = by_image.make_pseudo_labels(pair).logits
        assert not torch.allclose(by_batch.make_pseudo_labels(pair).logits, logits, atol=1e-4)
        alone = by_image.make_pseudo_labels(pair[:1]).logits
        torch.testing.assert_close(alone, logits[:1], rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="pseudo_keys is 'all'"):
            self.build(pseudo_keys='all')

    def test_crops_may_be_oblong(self):
        model = self.build(crop_size=(65, 97))
        assert model.memory.rows.shape == (CLASSES, 64, 3 * 4)
        for ready in (False, True):
            model.memory_ready.fill_(ready)
            entries = model.loss(*self.batch(size=(65, 97)))
            assert all(torch.isfinite(value) for value in entries.values())

    @pytest.mark.parametrize('size', [(97, 65), (65, 65), (97, 97)])
    def test_a_crop_that_does_not_fit_the_memory_is_refused(self, size):
        model = self.build(crop_size=(65, 97))
        before = memory_of(model)
        with pytest.raises(ValueError, match=r'bottleneck\.crop_size=\(65, 97\)'):
            model.loss(*self.batch(size=size))
        assert same(memory_of(model), before)

    def test_other_heads_are_refused(self):
        with pytest.raises(ValueError, match=r'decode_head is a AllMLPHead.*AllSparkHead'):
            build_model(dict(type=self.method, segmentor=tiny_segmentor()))


def test_bottleneck_and_decoder_must_agree_on_classes():
    with pytest.raises(
        ValueError, match=r'bottleneck.num_classes is 5, expected 4, which is decoder.num_classes'
    ):
        build_model(behind_bottleneck(tiny_segmentor(), num_classes=5))


def test_bottleneck_and_decoder_must_agree_on_channels():
    with pytest.raises(ValueError, match=r'bottleneck\.in_channels is 40, expected 64'):
        build_model(behind_bottleneck(tiny_segmentor(), in_channels=40))


def test_the_bottleneck_can_replace_any_feature():
    segmentor = behind_bottleneck(tiny_segmentor(), in_channels=40, stride=16)
    segmentor['decode_head']['bottleneck_index'] = 2
    model = build_model(dict(type='allspark_mmseg.AllSpark', segmentor=segmentor)).train()
    entries = model.loss(*batch())
    losses_in(entries).backward()
    assert model.memory.rows.shape == (CLASSES, 40, 5 * 5)
    assert model.memory.written.sum() > 0


def test_minus_one_is_the_deepest_feature_that_the_decoder_reads():
    head = dict(tiny_head(), in_channels=WIDTHS[1:3], in_index=[1, 2])
    segmentor = behind_bottleneck(tiny_segmentor(decode_head=head), in_channels=40, stride=16)
    model = build_model(segmentor).eval()
    assert model.decode_head.bottleneck_index == 2
    image = torch.randn(1, 3, *CROP)
    with torch.no_grad():
        before = model._forward(image)
        for value in model.decode_head.bottleneck.parameters():
            value.zero_()
        assert not torch.equal(model._forward(image), before)


def test_a_feature_that_the_decoder_does_not_read_is_refused():
    segmentor = behind_bottleneck(tiny_segmentor(), in_channels=40, stride=16)
    segmentor['decode_head']['decoder'].update(in_channels=[WIDTHS[1], WIDTHS[3]], in_index=[1, 3])
    segmentor['decode_head']['bottleneck_index'] = 2
    with pytest.raises(ValueError, match=r'bottleneck_index is 2, expected one of in_index=\[1, 3\]'):
        build_model(segmentor)


@pytest.mark.parametrize(
    'name', ['num_classes', 'out_channels', 'align_corners', 'threshold', 'ignore_index']
)
def test_the_head_has_the_attributes_of_its_decoder(name):
    head = build_model(behind_bottleneck(tiny_segmentor())).decode_head
    assert getattr(head, name) == getattr(head.decoder, name)


def stub_runner(model, loop: type = EpochBasedTrainLoop):
    messages = []
    logger = SimpleNamespace(info=messages.append)
    return SimpleNamespace(
        model=model, train_loop=loop.__new__(loop), epoch=0, iter=0, logger=logger, messages=messages
    )


def build_allspark():
    segmentor = behind_bottleneck(tiny_segmentor())
    return build_model(dict(type='allspark_mmseg.AllSpark', segmentor=segmentor))


@pytest.mark.parametrize('unit', ['epochs', 'iters'])
@pytest.mark.parametrize('wrap', [lambda model: model, torch.nn.DataParallel])
def test_warm_up_ends_in_time_and_logs_it_once(unit, wrap):
    model = build_allspark()
    runner = stub_runner(wrap(model), EpochBasedTrainLoop if unit == 'epochs' else IterBasedTrainLoop)
    hook = MemoryWarmUpHook(**{unit: 2})
    hook.before_train(runner)
    read = []
    for iteration in range(8):
        runner.iter = iteration
        runner.epoch = iteration // 2 if unit == 'epochs' else 0
        hook.before_train_iter(runner, 0)
        read.append(bool(model.memory_ready))
    start = 4 if unit == 'epochs' else 2
    assert read == [iteration >= start for iteration in range(8)]
    assert len(runner.messages) == 1
    assert f'iteration {start} ' in runner.messages[0]


def test_the_memory_is_read_according_to_the_current_epoch():
    model = build_allspark()
    runner = stub_runner(model)
    MemoryWarmUpHook(epochs=0).before_train_iter(runner, 0)
    assert bool(model.memory_ready)
    # a run that starts from the weights of a finished one warms up again
    MemoryWarmUpHook(epochs=1).before_train_iter(runner, 0)
    assert not bool(model.memory_ready)
    runner.epoch, runner.iter = 7, 70
    MemoryWarmUpHook(epochs=5).before_train_iter(runner, 0)
    assert bool(model.memory_ready)


@pytest.mark.parametrize('arguments', [{}, dict(epochs=1, iters=1), dict(epochs=-1), dict(iters=-1)])
def test_warm_up_arguments_are_checked(arguments):
    with pytest.raises(ValueError, match='either epochs or iters, at least 0'):
        MemoryWarmUpHook(**arguments)


def test_warm_up_checks_the_model_and_the_loop():
    with pytest.raises(ValueError, match='model is a EncoderDecoder'):
        MemoryWarmUpHook(epochs=1).before_train(stub_runner(build_model(tiny_segmentor())))
    runner = stub_runner(build_allspark(), IterBasedTrainLoop)
    with pytest.raises(ValueError, match='epochs=1, but train_cfg is iteration-based'):
        MemoryWarmUpHook(epochs=1).before_train(runner)
    MemoryWarmUpHook(iters=1).before_train(runner)


def test_the_decoder_may_be_any_head():
    """SegFormer's head of MMSegmentation, which is another one than the paper's."""
    decoder = tiny_head() | dict(type='SegformerHead', in_index=[0, 1, 2, 3])
    segmentor = behind_bottleneck(tiny_segmentor(decode_head=decoder))
    model = build_model(dict(type='allspark_mmseg.AllSpark', segmentor=segmentor)).train()
    entries = model.loss(*batch())
    losses_in(entries).backward()
    assert all(torch.isfinite(value) for value in entries.values())
