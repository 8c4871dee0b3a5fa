"""Mean Teacher, FixMatch, UniMatch and UniMatch V2: the contract of every method, and their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from allspark_mmseg.methods.unimatch_v2 import complementary_dropout
from allspark_mmseg.pseudo_label import PseudoLabel

from ..method_contract import (
    CLASSES,
    CROP,
    MethodContract,
    batch,
    losses_in,
    tiny_resnet,
    tiny_segmentor,
    train_steps,
)

SHALLOW = slice(0, CROP[0] // 2)  # the rows that are no padding


class Watch:
    """Notes what enters and what leaves a module, call by call."""

    def __init__(self, module: nn.Module):
        self.given: list = []
        self.answers: list = []
        self.training: list[bool] = []
        module.register_forward_hook(self.note)

    def note(self, module, given, answer):
        self.given.append(given[0])
        self.answers.append(answer)
        self.training.append(module.training)


def resized(logits: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits.detach(), CROP, mode='bilinear')


def fixmatch_loss(student: torch.Tensor, teacher: torch.Tensor, threshold: float) -> torch.Tensor:
    """The formula, on logits (N, K, h, w) of unmixed images whose lower half is padding."""
    confidence, label = resized(teacher).softmax(1).max(1)
    per_pixel = F.cross_entropy(resized(student), label, reduction='none')
    return (per_pixel * (confidence >= threshold))[:, SHALLOW].mean()


def apart(model: nn.Module) -> nn.Module:
    """The teacher made another one than the student."""
    with torch.no_grad():
        for value in model.teacher.parameters():
            value.add_(0.03 * torch.randn_like(value))
    return model


class TestMeanTeacher(MethodContract):
    method = 'allspark_mmseg.MeanTeacher'
    views = ('weak', 'strong_1')
    settings = dict(threshold=0.3)
    hyper_parameters = dict(
        teacher=dict(momentum=0.5, warm_up=False),
        labeled_weight=0.7,
        unlabeled_weight=0.7,
        unlabeled_view='weak',
        threshold=0.5,
        ignore_padding=True,
        average_over='all',
        ramp_up=5,
    )

    @pytest.mark.parametrize('ramp_up', [1, 40])
    def test_the_ramp(self, ramp_up):
        model = self.build(ramp_up=ramp_up)
        found = []
        for step in range(ramp_up + 3):
            model.teacher.steps.fill_(step)
            found.append(model.weight().item())
        assert found[0] == pytest.approx(math.exp(-5), rel=1e-6)
        assert found[ramp_up // 2] == pytest.approx(math.exp(-5 * (1 - (ramp_up // 2) / ramp_up) ** 2))
        assert found[ramp_up:] == [1, 1, 1]
        assert found[: ramp_up + 1] == sorted(set(found)), 'not strictly rising'
        assert not model.weight().requires_grad

    def test_without_a_ramp_the_weight_is_one(self):
        model = self.build(ramp_up=0)
        for step in (0, 1, 1000):
            model.teacher.steps.fill_(step)
            assert model.weight() == 1
        assert model.weight().dtype == torch.float32

    def test_the_ramp_goes_on_from_the_checkpoint(self):
        model, again = self.build(ramp_up=5), self.build(ramp_up=5)
        logged, _ = train_steps(model, [self.batch()] * 3)
        weights = [math.exp(-5 * (1 - t / 5) ** 2) for t in range(4)]
        assert [entries['pseudo.weight'].item() for entries in logged] == pytest.approx(weights[:3])
        again.load_state_dict(model.state_dict())
        ((entries,), _) = train_steps(again, [self.batch()])
        assert entries['pseudo.weight'].item() == pytest.approx(weights[3])

    def test_loss_is_the_papers(self):
        """The teacher's labels, of the weak view and where confident, for the student's strong view."""
        inputs, data_samples = self.batch(1, 2)
        model = self.build(ramp_up=10, unlabeled_weight=0.8, ignore_padding=True, threshold=0.4)
        apart(model)
        model.teacher.steps.fill_(4)
        labels, student = Watch(model.teacher.module.decode_head), Watch(model.decode_head)
        backbone = Watch(model.student.backbone)
        entries = model.loss(inputs, data_samples)
        assert len(labels.answers) == len(student.answers) == 1
        assert torch.equal(backbone.given[0], torch.cat([inputs['labeled'], inputs['strong_1']]))
        confidence, label = resized(labels.answers[0])[:, :, SHALLOW].softmax(1).max(1)
        assert 0.1 < (confidence >= 0.4).float().mean() < 0.9
        expected = F.cross_entropy(
            resized(student.answers[0][1:])[:, :, SHALLOW], label.masked_fill(confidence < 0.4, 255),
            ignore_index=255,
        )  # fmt: skip
        weight = math.exp(-5 * (1 - 4 / 10) ** 2)
        torch.testing.assert_close(entries['unsup.loss_ce'], 0.8 * weight * expected)
        with torch.no_grad():
            alone = model.teacher.module.decode_head(model.teacher.module.extract_feat(inputs['weak']))
        torch.testing.assert_close(labels.answers[0], alone)

    def test_the_ramp_is_not_negative(self):
        with pytest.raises(ValueError, match='MeanTeacher: ramp_up is -1 steps'):
            self.build(ramp_up=-1)


UNIMATCH_VIEWS = tuple(prefix + view for prefix in ('', 'mix_') for view in ('weak', 'strong_1', 'strong_2'))


class TestFixMatch(MethodContract):
    method = 'allspark_mmseg.FixMatch'
    views = ('weak', 'strong_1', 'mix_weak', 'mix_strong_1')
    settings = dict(threshold=0.3)
    hyper_parameters = dict(
        threshold=0.5,
        labeled_weight=0.7,
        strong_weight=0.7,
        cutmix=dict(prob=1.0),
        mix_source='same_image',
        ignore_padding=False,
    )
    strong_views = ('strong_1',)

    def unmixed(self, **overrides) -> nn.Module:
        return self.build(cutmix=dict(prob=0.0), **overrides)

    def strong_logits(self, head: Watch) -> list[torch.Tensor]:
        """Of each strong view, as the student's decode head gave them; two unlabeled images each."""
        return list(head.answers[-1][-2 * len(self.strong_views) :].split(2))

    def weak_logits(self, model, head: Watch, labels: Watch | None) -> torch.Tensor:
        return head.answers[0][1:3] if labels is None else labels.answers[0]

    @pytest.mark.parametrize('teacher', [None, {}])
    def test_loss_is_the_papers(self, teacher):
        model = self.unmixed(teacher=teacher)
        labeler, labels = model.student, None
        if model.teacher is not None:
            labeler = apart(model).teacher.module
            labels = Watch(labeler.decode_head)
        head, labeled = Watch(model.decode_head), Watch(labeler.backbone)
        inputs, data_samples = self.batch(1, 2)
        entries = model.loss(inputs, data_samples)
        assert torch.equal(labeled.given[0][-2:], inputs['weak'])
        weak = self.weak_logits(model, head, labels)
        confident = (resized(weak).softmax(1).amax(1) >= 0.3)[:, SHALLOW].float().mean()
        assert 0.1 < confident < 0.9
        torch.testing.assert_close(entries['pseudo.confident'], confident)
        for view, logits in zip(self.strong_views, self.strong_logits(head), strict=True):
            expected = model.strong_weight * fixmatch_loss(logits, weak, 0.3)
            torch.testing.assert_close(entries[f'unsup.loss_{view}'].detach(), expected)
        if labels is not None:
            assert labels.training == [False]

    def test_default_weights_are_the_papers(self):
        model = self.build()
        assert (model.labeled_weight, model.strong_weight) == (0.5, 0.5)

    def test_padding_alone_gives_nothing(self):
        inputs, data_samples = self.batch()
        for view in self.views:
            for sample in data_samples[view]:
                sample.gt_sem_seg.data.fill_(255)
        model = self.build()
        entries = model.loss(inputs, data_samples)
        unsupervised = losses_in(entries, 'unsup.')
        assert unsupervised == 0
        assert entries['pseudo.confident'] == 0
        unsupervised.backward()
        assert all(value.grad.eq(0).all() for value in model.parameters() if value.grad is not None)

    @pytest.mark.parametrize('source', ['batch', 'same_image'])
    def test_labels_are_mixed_as_their_images(self, source):
        """Images tell their label: each pixel is its class."""
        size = (12, 10)
        views = [view for view in self.views if view.endswith(('weak', *self.strong_views))]
        model = self.build(mix_source=source, cutmix=dict(prob=1.0), ignore_padding=True)
        classes = {view: torch.randint(CLASSES, (3, *size)) for view in ('weak', 'mix_weak')}
        pictures = {view: label[:, None].float().repeat(1, 3, 1, 1) for view, label in classes.items()}
        inputs = {view: pictures['mix_weak' if view.startswith('mix_') else 'weak'] for view in views}
        samples = batch(1, 3, size=size, views=tuple(views))[1]
        padding = {view: torch.rand(3, *size) < 0.2 for view in ('weak', 'mix_weak')}
        for view, marks in padding.items():
            for sample, own in zip(samples.get(view, []), marks, strict=False):
                sample.gt_sem_seg.data = 255 * own[None].long()
        logits = {
            view: 5 * F.one_hot(label, CLASSES).movedim(-1, 1).float() for view, label in classes.items()
        }
        model.label = lambda images, threshold, padding: PseudoLabel.from_logits(
            logits['mix_weak'], threshold, padding
        )
        mixed, mix_labels = model.mix(inputs, samples)
        pseudo = PseudoLabel.from_logits(logits['weak'], model.threshold, padding['weak'])
        labels = mix_labels(pseudo)
        assert len(mixed) == len(labels) == len(self.strong_views)
        changed = []
        for images, label in zip(mixed, labels, strict=True):
            for channel in images.unbind(1):
                assert torch.equal(channel.long(), label.label)
            assert torch.equal(label.target, label.label.masked_fill(~label.valid, 255))
            changed.append(images[:, 0] != classes['weak'])
            other = classes['weak'].flip(0) if source == 'batch' else classes['mix_weak']
            assert torch.equal(images[:, 0].long()[changed[-1]], other[changed[-1]])
            other_padding = padding['weak'].flip(0) if source == 'batch' else padding['mix_weak']
            assert torch.equal(label.image_mask[changed[-1]], ~other_padding[changed[-1]])
            assert changed[-1][0].any() and changed[-1][2].any()
            # the middle one of three is its own source
            assert changed[-1][1].any() == (source == 'same_image')
        if len(changed) == 2:
            assert not torch.equal(*changed), 'each view has a box of its own'

    def test_a_batch_of_one_image_stays_as_it_is(self):
        inputs, data_samples = self.batch(1, 1)
        model = self.build(cutmix=dict(prob=1.0))
        mixed, mix_labels = model.mix(inputs, data_samples)
        for view, images in zip(self.strong_views, mixed, strict=True):
            assert torch.equal(images, inputs[view])
        pseudo = PseudoLabel.from_logits(torch.randn(1, CLASSES, *CROP), 0.3)
        for label in mix_labels(pseudo):
            assert torch.equal(label.target, pseudo.target)
        losses_in(model.loss(inputs, data_samples)).backward()
        pasted, _ = self.build(mix_source='same_image', cutmix=dict(prob=1.0)).mix(inputs, data_samples)
        assert not torch.equal(pasted[0], inputs['strong_1'])

    def test_the_network_sees_the_mixed_images(self):
        model = self.build(cutmix=dict(prob=1.0))
        inputs, data_samples = self.batch()
        backbone = Watch(model.student.backbone)
        mixes = []
        mix = model.mix
        model.mix = lambda *given: mixes.append(mix(*given)) or mixes[-1]
        model.loss(inputs, data_samples)
        ((mixed, _),) = mixes
        expected = torch.cat(mixed)
        assert torch.equal(backbone.given[-1][-len(expected) :], expected)
        assert not torch.equal(expected, torch.cat([inputs[view] for view in self.strong_views]))

    def test_pasted_images_are_labeled_before_the_statistics_move(self):
        """In eval mode, by the network as it is before this step."""
        model, again = (self.build(mix_source='same_image') for _ in range(2))
        inputs, data_samples = self.batch()
        head = Watch((model if model.teacher is None else model.teacher.module).decode_head)
        model.loss(inputs, data_samples)
        expected = again.label(inputs['mix_weak']).logits
        place = head.training.index(False) if model.teacher is None else 1 - int(self.pastes_first)
        torch.testing.assert_close(resized(head.answers[place]), expected)

    pastes_first = True  # among the teacher's passes

    def test_settings_out_of_range(self):
        name = self.method.rpartition('.')[-1]
        with pytest.raises(ValueError, match=rf'{name}: threshold is 1.5'):
            self.build(threshold=1.5)
        with pytest.raises(ValueError, match=rf"{name}: mix_source is 'other', expected one of \('batch', "):
            self.build(mix_source='other')
        with pytest.raises(ValueError, match='CutMix: prob is 2'):
            self.build(cutmix=dict(prob=2))


class TestUniMatch(TestFixMatch):
    method = 'allspark_mmseg.UniMatch'
    views = UNIMATCH_VIEWS
    hyper_parameters = TestFixMatch.hyper_parameters | dict(perturbed_weight=0.7, drop_rate=0.1)
    strong_views = ('strong_1', 'strong_2')

    def test_default_weights_are_the_papers(self):
        model = self.build()
        assert (model.labeled_weight, model.strong_weight, model.perturbed_weight) == (0.5, 0.125, 0.25)
        assert model.drop_rate == 0.5

    @pytest.mark.parametrize('rate', [0.5, 0.25])
    @pytest.mark.parametrize('segmentor', [tiny_segmentor, tiny_resnet])
    def test_channels_are_dropped_of_all_levels(self, rate, segmentor):
        model = self.unmixed(segmentor=segmentor(), drop_rate=rate)
        head = Watch(model.decode_head)
        model.loss(*self.batch(3, 3))
        assert [len(given[0]) for given in head.given] == [12, 6], 'the decoder is called twice'
        kept = []
        for level in head.given[0]:
            clean, perturbed = (part.flatten(2) for part in level.chunk(2))
            dropped = perturbed.eq(0).all(2)
            whole = torch.isclose(perturbed * (1 - rate), clean, rtol=1e-5, atol=1e-6).all(2)
            assert (dropped | whole).all()
            kept.append((~dropped).float())
            assert not torch.equal(dropped[0], dropped[-1]), 'one draw for all images'
        share = torch.cat(kept, 1)
        assert share.mean() == pytest.approx(1 - rate, abs=0.1)
        assert all(0.2 < level.mean() < 0.95 for level in kept)

    def test_the_perturbed_loss_is_of_unlabeled_images_alone(self):
        model = self.unmixed(strong_weight=0.0, labeled_weight=0.0)
        head = Watch(model.decode_head)
        entries = model.loss(*self.batch(2, 2))
        answers = head.answers[0]
        assert len(answers) == 8
        weak, perturbed = answers[2:4], answers[6:8]
        expected = 0.25 * fixmatch_loss(perturbed, weak, 0.3)
        torch.testing.assert_close(entries['unsup.loss_perturbed'].detach(), expected)
        answers.retain_grad()
        losses_in(entries).backward()
        moved = answers.grad.flatten(1).abs().amax(1) > 0
        assert moved.tolist() == [False] * 6 + [True] * 2

    def test_weights_scale_their_own_losses_alone(self):
        step = self.batch()
        plain = self.build().loss(*step)
        for weight, own in (
            ('strong_weight', {'unsup.loss_strong_1', 'unsup.loss_strong_2'}),
            ('perturbed_weight', {'unsup.loss_perturbed'}),
            ('labeled_weight', {name for name in plain if name.startswith('sup.') and 'loss' in name}),
        ):
            model = self.build()
            doubled = self.build(**{weight: 2 * getattr(model, weight)}).loss(*step)
            for name, value in plain.items():
                torch.testing.assert_close(doubled[name], (1 + (name in own)) * value)

    def test_the_rate_is_below_one(self):
        for rate in (1.0, -0.1):
            with pytest.raises(ValueError, match=f'UniMatch: drop_rate is {rate}'):
                self.build(drop_rate=rate)


class TestUniMatchV2(TestFixMatch):
    method = 'allspark_mmseg.UniMatchV2'
    views = UNIMATCH_VIEWS
    hyper_parameters = TestFixMatch.hyper_parameters | dict(
        no_dropout_ratio=0.0, teacher=dict(momentum=0.5, warm_up=False)
    )
    strong_views = ('strong_1', 'strong_2')
    pastes_first = False

    def unmixed(self, **overrides) -> nn.Module:
        return super().unmixed(no_dropout_ratio=1.0, **overrides)

    def weak_logits(self, model, head: Watch, labels: Watch | None) -> torch.Tensor:
        return labels.answers[0]

    def test_default_weights_are_the_papers(self):
        model = self.build()
        assert (model.labeled_weight, model.strong_weight) == (0.5, 0.25)
        assert model.no_dropout_ratio == 0.5
        assert model.teacher.momentum == 0.004 and model.teacher.warm_up

    def test_labeled_and_strong_images_go_apart(self):
        model = self.unmixed()
        inputs, data_samples = self.batch(1, 2)
        backbone, head = Watch(model.student.backbone), Watch(model.decode_head)
        labels = Watch(model.teacher.module.backbone)
        model.loss(inputs, data_samples)
        for given, expected in zip(
            backbone.given,
            (inputs['labeled'], torch.cat([inputs['strong_1'], inputs['strong_2']])),
            strict=True,
        ):
            assert torch.equal(given, expected)
        assert [len(answer) for answer in head.answers] == [1, 4]
        assert len(labels.given) == 1 and torch.equal(labels.given[0], inputs['weak'])

    def test_the_strong_features_alone_are_dropped(self):
        model = self.build(no_dropout_ratio=0.0)
        backbone, head = Watch(model.student.backbone), Watch(model.decode_head)
        model.loss(*self.batch(1, 2))
        assert all(torch.equal(*pair) for pair in zip(backbone.answers[0], head.given[0], strict=True))
        for plain, given in zip(backbone.answers[1], head.given[1], strict=True):
            ratio = given.flatten(2).abs().sum(2) / plain.flatten(2).abs().sum(2)
            assert torch.equal((ratio[:2] + ratio[2:]).round(decimals=4), torch.full_like(ratio[:2], 2))
            assert sorted(ratio.round(decimals=4).unique().tolist()) == [0, 2]

    def test_the_share_is_one(self):
        for share in (-0.1, 1.5):
            with pytest.raises(ValueError, match=f'UniMatchV2: no_dropout_ratio is {share}'):
                self.build(no_dropout_ratio=share)


def masks_of(widths: list[int], pairs: int, no_dropout_ratio: float) -> list[torch.Tensor]:
    """What ones become: (pairs, C) of the first images and of the second ones, level by level."""
    dropped = complementary_dropout(
        [torch.ones(2 * pairs, width, 2, 3) for width in widths], no_dropout_ratio
    )
    assert all(level.eq(level[:, :, :1, :1]).all() for level in dropped), 'positions differ'
    return [level[:, :, 0, 0] for level in dropped]


@pytest.mark.parametrize('pairs', [1, 2, 3, 8])
@pytest.mark.parametrize('no_dropout_ratio', [0.0, 0.5, 1.0])
def test_complementary_masks(pairs, no_dropout_ratio):
    for mask in masks_of([16, 24, 16], pairs, no_dropout_ratio):
        first, second = mask.chunk(2)
        assert torch.equal(first + second, torch.full_like(first, 2))
        whole = first.eq(1).all(1)
        assert whole.sum() == math.floor(pairs * no_dropout_ratio)
        assert set(first[~whole].unique().tolist()) <= {0.0, 2.0}
        assert torch.equal(second.eq(1).all(1), whole)


def test_levels_of_a_width_share_the_draw_and_others_do_not():
    same_width, other, again = masks_of([64, 32, 64], 4, 0.5)
    assert torch.equal(same_width, again)
    assert not torch.equal(same_width[:, :32], other)
    # but the same pairs are left alone
    assert torch.equal(same_width.eq(1).all(1), other.eq(1).all(1))


def test_draws_are_fair_and_differ():
    masks = torch.stack([masks_of([32], 6, 0.5)[0] for _ in range(100)])
    touched = ~masks.eq(1).all(2)
    assert touched[:, :6].float().mean(0).tolist() == pytest.approx([0.5] * 6, abs=0.2)
    values = masks[:, :6][touched[:, :6]]
    assert values.eq(2).float().mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(values.numel()))
    assert values.eq(2).float().mean(0).tolist() == pytest.approx([0.5] * 32, abs=0.15)
    assert len(values.unique(dim=0)) > 290, 'pairs share a draw'


def test_gradients_flow_through_what_is_kept():
    features = [torch.randn(4, 8, 3, 3, requires_grad=True).half().float()]
    features[0].retain_grad()
    (dropped,) = complementary_dropout(features, 0.5)
    dropped.sum().backward()
    factor = features[0].grad
    torch.testing.assert_close(dropped, features[0] * factor)
    assert {0.0, 1.0, 2.0} == set(factor.unique().tolist())
    (half,) = complementary_dropout([torch.randn(4, 8, 3, 3).bfloat16()], 0.0)
    assert half.dtype == torch.bfloat16
