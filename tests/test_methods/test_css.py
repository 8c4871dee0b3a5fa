"""CSS: the contract of every method, and its formulas against naive ones; the numbers: test_css_golden."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import distributed as dist
from torch.multiprocessing import start_processes

from allspark_mmseg.methods import CSSMix
from allspark_mmseg.methods.css import (
    ClassPrototypes,
    Rescale,
    Targets,
    contrastive_loss,
    draw,
    flipped,
    negative_classes,
)

from ..method_contract import (
    CLASSES,
    CROP,
    MethodContract,
    build_model,
    gradients,
    losses_in,
    same,
    tiny_resnet,
    tiny_segmentor,
    train_steps,
)

CHANNELS = 6


def with_representations(segmentor: dict, norm_cfg: dict | None = None) -> dict:
    """The segmentor with a tiny ``RepresentationHead``; group norm, so that one image is a batch."""
    widths = segmentor['decode_head']['in_channels']
    head = dict(
        type='allspark_mmseg.RepresentationHead',
        in_channels=[widths[0], widths[-1]],
        channels=8,
        c1_channels=4,
        representation_channels=CHANNELS,
        num_classes=CLASSES,
        norm_cfg=norm_cfg or dict(type='GN', num_groups=2),
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
    return segmentor | dict(decode_head=head)


def tiny_css_segmentor() -> dict:
    """A ResNet-18 whose batch norms train."""
    segmentor = tiny_resnet()
    return with_representations(segmentor | dict(backbone=segmentor['backbone'] | dict(norm_eval=False)))


def running_statistics(module) -> dict:
    return {
        name: value.clone()
        for name, value in module.state_dict().items()
        if 'running' in name or 'num_batches' in name
    }


class CSSContract(MethodContract):
    views = ('weak', 'strong_1')
    plain = staticmethod(tiny_css_segmentor)
    settings = dict(
        threshold=0.6, weak_threshold=0.4, hard_threshold=0.9, queries=16, negatives=8, contrast_ramp_down=20
    )
    hyper_parameters = dict(
        teacher=dict(momentum=0.5, warm_up=False),
        threshold=0.9,
        weak_threshold=0.8,
        hard_threshold=0.5,
        contrast_temperature=0.2,
        queries=5,
        negatives=4,
        prototype_momentum=0.5,
        contrast_weight=0.5,
        contrast_ramp_down=2,
        scale_range=(1.0, 1.0),
        mix='classmix',
        average_over='labeled',
        teacher_statistics='student',
        ignore_padding=True,
    )

    def wrapped(self, segmentor: dict, **_) -> dict:
        return with_representations(segmentor)

    def test_every_hyper_parameter_matters(self):
        """With logits so far apart that some pixels are fitted to the last digit, and with prototypes."""
        build = self.build

        def build_sharp(*args, **kwargs):
            model = build(*args, **kwargs)
            with torch.no_grad():
                for segmentor in (model.student, model.teacher.module):
                    segmentor.decode_head.conv_seg.weight.mul_(60)
                    segmentor.decode_head.representation[1].bias.zero_()
                model.prototypes.value.normal_()
                model.prototypes.seen.fill_(True)
            return model

        self.build = build_sharp
        super().test_every_hyper_parameter_matters()

    def test_a_teacher_labels_and_follows_without_gradient(self):
        """Its batch norms follow batches of their own, and its parameters the student."""
        model = self.build(teacher=dict(momentum=0.25, warm_up=False))
        teacher, student = model.teacher.module, model.student
        with torch.no_grad():
            for value in student.parameters():
                value.add_(0.1 * torch.randn_like(value))
        before = {name: value.clone() for name, value in teacher.state_dict().items()}
        modes = []
        teacher.backbone.bn1.register_forward_hook(lambda norm, *_: modes.append(norm.training))
        losses_in(model.train().loss(*self.batch())).backward()
        passes = 2 if model.teacher_statistics == 'labeled_and_weak' else 1
        assert modes == [True] * passes
        assert not any(module.training for module in model.teacher.modules())
        assert all(name.startswith('student.') for name in gradients(model))
        parameters = dict(teacher.named_parameters())
        for name, value in teacher.state_dict().items():
            assert torch.equal(value, before[name]) == (name in parameters), name

        statistics = running_statistics(teacher)
        expected = {name: 0.75 * before[name] + 0.25 * value for name, value in student.named_parameters()}
        model.teacher.update_parameters(student)
        for name, value in parameters.items():
            torch.testing.assert_close(value, expected[name])
        assert same(running_statistics(teacher), statistics)

    def test_the_teacher_may_follow_the_student_s_statistics(self):
        model = self.build(teacher_statistics='student', teacher=dict(momentum=0.25, warm_up=False))
        before = running_statistics(model.teacher.module)
        model.loss(*self.batch())
        assert same(running_statistics(model.teacher.module), before)
        model.teacher.update_parameters(model.student)
        for name, value in running_statistics(model.student).items():
            expected = value if 'num' in name else 0.75 * before[name] + 0.25 * value
            torch.testing.assert_close(running_statistics(model.teacher.module)[name], expected)

    def test_the_teacher_predicts_by_default(self):
        model = self.build()
        assert model.predictor is model.teacher.module
        assert model.teacher.momentum == 0.01

    @pytest.mark.parametrize('mix', ['cutmix', 'cutout', 'classmix', None])
    @pytest.mark.parametrize('ignored', [False, True])
    def test_every_mix_gives_finite_losses(self, mix, ignored):
        model = self.build(mix=mix)
        entries = model.loss(*self.batch(ignored=ignored))
        losses_in(entries).backward()
        assert all(torch.isfinite(value) for value in entries.values())
        missing = {name for name, _ in model.student.named_parameters()} - gradients(model.student).keys()
        assert not missing, 'other processes would wait for these gradients'

    def test_without_any_target_all_parameters_still_have_gradients(self):
        model = self.build()
        model.targets = lambda *_: (
            Targets(torch.full((2, 1, *CROP), 255), torch.zeros(2, 1, *CROP)),
            {},
        )
        entries = model.loss(*self.batch(ignored=True))
        losses_in(entries).backward()
        assert losses_in(entries) == 0
        assert all(value.grad is not None and not value.grad.any() for value in model.student.parameters())

    def test_mixed_precision_ends_before_the_losses(self):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            model = self.build()
            entries = model.loss(*self.batch())
        assert all(value.dtype == torch.float32 for name, value in entries.items() if 'loss' in name)
        losses_in(entries).backward()
        assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())

    @pytest.mark.parametrize('mix', ['cutmix', 'classmix'])
    def test_its_own_part_of_a_step_waits_for_nothing(self, mix, monkeypatch):
        """Tensors without data: asking for a value or for a number of pixels raises."""
        monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # does not know the device
        model = self.build(mix=mix).to('meta')
        model.supervised_loss = lambda *_: {}  # MMSegmentation's accuracy waits
        inputs, data_samples = self.batch()
        entries = model.loss(
            {name: view.to('meta') for name, view in inputs.items()},
            {name: [sample.to('meta') for sample in view] for name, view in data_samples.items()},
        )
        losses_in(entries).backward()
        assert all(value.is_meta for value in entries.values())

    def test_the_log(self):
        model = self.build()
        for _ in range(2):
            entries = model.loss(*self.batch())
        assert 0 < entries['css.hard'] <= 1
        assert entries['css.seen'] == CLASSES
        assert ('css.agreement' in entries) == (self.method != 'allspark_mmseg.CSSBaseline')
        assert {'pseudo.confidence', 'pseudo.confident', 'pseudo.classes'} <= entries.keys()
        assert 0 <= entries.get('css.agreement', 0) <= 1

    def test_prototypes_of_other_classes_are_refused(self):
        model = self.build()
        state = model.state_dict()
        state['prototypes.value'] = torch.zeros(21, 256)
        with pytest.raises(ValueError, match=r'prototypes\.value.*\(21, 256\).*\(4, 6\).*num_classes'):
            model.load_state_dict(state, strict=False)

    def test_other_heads_are_refused(self):
        with pytest.raises(ValueError, match=r'decode_head is a AllMLPHead.*RepresentationHead'):
            build_model(dict(type=self.method, segmentor=tiny_segmentor()))

    @pytest.mark.parametrize(
        'argument, value',
        [
            ('threshold', 97),
            ('weak_threshold', -0.1),
            ('hard_threshold', 1.5),
            ('contrast_temperature', 0.0),
            ('queries', 0),
            ('negatives', 0),
            ('prototype_momentum', 0.0),
            ('contrast_ramp_down', 0),
            ('scale_range', (1.5, 0.5)),
            ('mix', 'mixup'),
            ('average_over', 'all'),
            ('teacher_statistics', 'own'),
        ],
    )
    def test_wrong_arguments_are_named(self, argument, value):
        with pytest.raises(ValueError, match=argument) as error:
            self.build(**{argument: value})
        assert self.method.split('.')[1] in str(error.value)
        assert str(value) in str(error.value)


class TestCSSBaseline(CSSContract):
    method = 'allspark_mmseg.CSSBaseline'

    def test_what_is_hard(self):
        model = self.build(hard_threshold=0.5)
        logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).T[None, :, None]  # two classes, two pixels
        label = torch.tensor([[[0, 1]]])
        assert model.hard(logits, None, label).tolist() == [[[False, False]]]  # 0.5 is not below 0.5
        assert model.hard(logits, None, 1 - label).tolist() == [[[True, False]]]


class SimilarityContract(CSSContract):
    hyper_parameters = CSSContract.hyper_parameters | dict(similarity_temperature=0.3)

    @pytest.mark.parametrize('classes, highest', [(21, 0.732), (19, 0.752)])
    def test_a_threshold_out_of_reach_is_refused(self, classes, highest):
        """With the release's temperature of 0.5; the highest softmax similarity as the error gives it."""
        segmentor = with_representations(tiny_segmentor())
        segmentor['decode_head']['num_classes'] = classes
        config = dict(type=self.method, segmentor=segmentor, similarity_temperature=0.5)
        match = rf'hard_threshold is 0\.8.*{classes} classes.*exceeds {highest}.*every pixel.*None'
        with pytest.raises(ValueError, match=match):
            build_model(config | dict(hard_threshold=0.8))
        build_model(config | dict(hard_threshold=highest - 0.001, threshold=0.7))
        assert build_model(config | dict(hard_threshold=None, threshold=0.7)).hard_threshold is None

    def test_what_is_hard(self):
        model = self.build(hard_threshold=0.7, similarity_temperature=0.5)
        model.prototypes.value.copy_(3 * torch.eye(CLASSES, CHANNELS))
        model.prototypes.seen.copy_(torch.tensor([True, True, True, False]))
        z = torch.randn(2, CHANNELS, 5, 4)
        label = torch.randint(CLASSES, (2, 5, 4))
        label[0, 0, 0] = 255
        cosine = (z / z.norm(dim=1, keepdim=True))[:, :3]
        exponentials = (cosine / 0.5).exp()
        probability = torch.cat(
            [exponentials / exponentials.sum(1, keepdim=True), torch.zeros(2, 1, 5, 4)], 1
        )
        own = probability.gather(1, label.clamp(max=3)[:, None])[:, 0]
        assert torch.equal(model.hard(None, z, label)[label < 255], (own < 0.7)[label < 255])
        model.hard_threshold = None
        assert model.hard(None, z, label).all()

    def test_before_any_class_is_seen_similarity_is_unsure(self):
        model = self.build()
        logits = torch.randn(2, CLASSES, 9, 9)
        by_logit, by_similarity, _ = model.both_labels(logits, torch.randn(2, CHANNELS, 9, 9), (17, 17), None)
        torch.testing.assert_close(by_similarity.confidence, torch.full((2, 17, 17), 1 / CLASSES))
        assert by_logit.confidence.max() > 0.5

    def test_a_class_not_seen_is_never_named(self):
        model = self.build()
        model.prototypes.value[1:] = -torch.randn(CLASSES - 1, CHANNELS).abs()
        model.prototypes.seen[1:] = True
        z = torch.rand(2, CHANNELS, 9, 9)  # all cosines of the classes seen are negative
        _, by_similarity, _ = model.both_labels(torch.randn(2, CLASSES, 9, 9), z, (17, 17), None)
        assert by_similarity.label.min() > 0


class TestCSSMix(SimilarityContract):
    method = 'allspark_mmseg.CSSMix'
    hyper_parameters = SimilarityContract.hyper_parameters | dict(count_ignored=True)

    @pytest.mark.parametrize('count_ignored', [False, True])
    def test_pixels_of_disagreement(self, count_ignored):
        model = self.build(count_ignored=count_ignored)
        model.prototypes.value.copy_(torch.randn(CLASSES, CHANNELS))
        model.prototypes.seen.fill_(True)
        logits, z = torch.randn(2, CLASSES, 9, 9), torch.randn(2, CHANNELS, 9, 9)
        padding = torch.zeros(2, 9, 9, dtype=torch.bool)
        padding[:, :, 7:] = True
        targets, numbers = model.targets(logits, z, (9, 9), padding)
        by_logit = logits.argmax(1)
        by_similarity = F.cosine_similarity(
            z[:, None], model.prototypes.value[:, :, None, None], dim=2
        ).argmax(1)
        agreed = by_logit == by_similarity
        expected = by_logit.masked_fill(~agreed | padding, 255)
        assert torch.equal(targets.label[:, 0], expected)
        counted = ~padding if count_ignored else agreed & ~padding
        torch.testing.assert_close(targets.confidence[:, 0], logits.softmax(1).amax(1) * counted)
        share = (agreed & ~padding).sum() / (~padding).sum()
        torch.testing.assert_close(numbers['css.agreement'], share)


class TestCSSCross(SimilarityContract):
    method = 'allspark_mmseg.CSSCross'
    hyper_parameters = SimilarityContract.hyper_parameters | dict(warm_up=5)

    def test_labels_cross_after_the_warm_up(self):
        model = self.build(warm_up=3)
        model.prototypes.value.copy_(torch.randn(CLASSES, CHANNELS))
        model.prototypes.seen.fill_(True)
        logits, z = torch.randn(2, CLASSES, 9, 9), torch.randn(2, CHANNELS, 9, 9)
        by_logit = logits.softmax(1).max(1)
        cosine = F.cosine_similarity(z[:, None], model.prototypes.value[:, :, None, None], dim=2)
        by_similarity = (cosine / model.similarity_temperature).softmax(1).max(1)
        for steps, expected in ((2, by_logit), (3, by_similarity)):
            model.teacher.steps.fill_(steps)
            targets, _ = model.targets(logits, z, (9, 9), None)
            assert torch.equal(targets.label, torch.stack([expected.indices, by_logit.indices], 1))
            confidence = torch.stack([expected.values, by_logit.values], 1)
            torch.testing.assert_close(targets.confidence, confidence, rtol=1e-5, atol=1e-6)

    def test_a_threshold_that_no_similarity_reaches_is_refused(self):
        with pytest.raises(ValueError, match=r'threshold is 0\.97.*loss on pseudo-labels would always be 0'):
            self.build(threshold=0.97, hard_threshold=None, similarity_temperature=0.6)
        with pytest.raises(ValueError, match='warm_up is -1'):
            self.build(warm_up=-1)

    def test_classmix_goes_by_the_classifier_s_labels(self, monkeypatch):
        model = self.build(mix='classmix', scale_range=(1.0, 1.0))
        label = torch.stack([torch.full((2, 9, 9), 3), torch.randint(2, (2, 9, 9))], 1)
        images = torch.arange(2.0)[:, None, None, None].expand(2, 3, 9, 9)
        seen = []
        monkeypatch.setattr(
            'allspark_mmseg.methods.css.css.ClassMix.draw',
            lambda self, given: seen.append(given) or torch.zeros_like(given, dtype=torch.bool),
        )
        model.strong_view(images, Targets(label, torch.ones(2, 2, 9, 9)))
        assert torch.equal(seen[0], label[:, 1])


def test_training_draws_the_classes_apart():
    """On one batch of two images whose quarters are the classes, in colors of their own."""
    case = TestCSSBaseline()
    model = case.build(contrast_ramp_down=None, weak_threshold=0.0, scale_range=(1.0, 1.0), mix=None)
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.05, momentum=0.9)
    inputs, data_samples = case.batch()
    quarters = torch.arange(CROP[0])[:, None] // 33 * 2 + torch.arange(CROP[1]) // 33
    colored = torch.stack([(quarters == c).float() for c in range(3)]).expand(2, -1, -1, -1)
    for view in inputs:
        inputs[view] = colored
        for sample in data_samples[view]:
            sample.gt_sem_seg.data = quarters[None]
    found = []
    for _ in range(30):
        losses = model.loss(inputs, data_samples)
        optimizer.zero_grad()
        losses_in(losses).backward()
        optimizer.step()
        model.teacher.update_parameters(model.student)
        found.append(losses['unsup.loss_contrast'].item())
    assert np.mean(found[-3:]) < 0.85 * np.mean(found[:3])


# --- the parts, against naive double precision ---


def naive_contrast(z, prototypes, label, queries, negatives, temperature) -> torch.Tensor:
    """One query and one negative at a time, from the paper's equation."""

    def cosine(a, b):
        return (a @ b) / (a.norm() * b.norm())

    present = sorted({int(c) for c in label if c != 255})
    total = z.sum() * 0
    for c in present:
        if queries[c, 0] < 0:
            continue
        terms = []
        for q, others in zip(queries[c], negatives[c], strict=True):
            up = (cosine(z[q], prototypes[c]) / temperature).exp()
            down = sum((cosine(z[q], z[n].detach()) / temperature).exp() for n in others)
            terms.append(-(up / (up + down)).log())
        total = total + sum(terms) / len(terms)
    return total / max(len(present), 1)


def contrast_case(seed: int, classes: int = 4, pixels: int = 40):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(pixels, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(classes + 1, (pixels,), generator=generator)
    label[label == classes] = 255
    if seed % 3 == 0:
        label[label == 1] = 255  # an absent class
    hard = torch.rand(pixels, generator=generator) < 0.5
    if seed % 2:
        hard &= label != 2  # a class of easy pixels
    prototypes = torch.randn(classes, 5, generator=generator, dtype=torch.float64)
    present = torch.stack([(label == c).any() for c in range(classes)])
    return z, label, hard, prototypes, present


@pytest.mark.parametrize('seed', range(4))
def test_the_contrast_equals_its_definition(seed):
    z, label, hard, prototypes, present = contrast_case(seed)
    temperature = 0.3
    probability = negative_classes(prototypes, present, temperature)
    torch.manual_seed(seed)
    queries, negatives = draw(label, hard, probability, 6, 7)
    results = []
    for function in (
        lambda z: contrastive_loss(z, prototypes, present, queries, negatives, temperature),
        lambda z: naive_contrast(z, prototypes, label, queries, negatives, temperature),
    ):
        leaf = z.clone().requires_grad_()
        loss = function(leaf)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    moved = results[0][1].abs().sum(1) > 0
    assert set(moved.nonzero().flatten().tolist()) == set(queries[queries >= 0].tolist()), (
        'queries alone move'
    )


@pytest.mark.parametrize('seed', range(4))
def test_who_is_drawn(seed):
    _, label, hard, prototypes, present = contrast_case(seed)
    probability = negative_classes(prototypes, present, 0.5)
    unit = prototypes / prototypes.norm(dim=1, keepdim=True)
    queries, negatives = draw(label, hard, probability, 200, 400)
    assert queries.shape == (4, 200) and negatives.shape == (4, 200, 400)
    for c in range(4):
        candidates = ((label == c) & hard).nonzero().flatten()
        if not len(candidates):
            assert (queries[c] == -1).all() and (negatives[c] == -1).all()
            continue
        assert set(queries[c].tolist()) == set(candidates.tolist()), 'every hard pixel, and no other'
        others = [j for j in range(4) if j != c and present[j]]
        weights = [math.exp(unit[c] @ unit[j] / 0.5) for j in others]
        drawn = label[negatives[c]].flatten()
        assert set(negatives[c].flatten().tolist()) == {
            i for j in others for i in (label == j).nonzero().flatten().tolist()
        }
        for j, weight in zip(others, weights, strict=True):
            expected = weight / sum(weights)
            deviation = math.sqrt(expected * (1 - expected) / drawn.numel())
            assert (drawn == j).double().mean() == pytest.approx(expected, abs=5 * deviation + 1e-9)
            of_class = negatives[c].flatten()[drawn == j]
            _, counts = of_class.unique(return_counts=True)
            average = len(of_class) / len(counts)
            chi_square = ((counts - average) ** 2 / average).sum()
            assert chi_square < len(counts) + 5 * math.sqrt(2 * len(counts)), 'pixels are not alike'


@pytest.mark.parametrize('classes_left', [[], [2]])
def test_nothing_is_drawn_without_two_classes(classes_left):
    z, label, _, prototypes, _ = contrast_case(1)
    label[~torch.isin(label, torch.tensor(classes_left, dtype=torch.long))] = 255
    present = torch.stack([(label == c).any() for c in range(4)])
    probability = negative_classes(prototypes, present, 0.5)
    assert probability.isfinite().all()
    queries, negatives = draw(label, torch.ones_like(label, dtype=torch.bool), probability, 3, 5)
    assert (queries == -1).all() and (negatives == -1).all()
    z.requires_grad_()
    loss = contrastive_loss(z, prototypes, present, queries, negatives, 0.5)
    loss.backward()
    assert loss == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_drawing_and_contrasting_wait_for_nothing():
    """Tensors without data: asking for a value or for a number of pixels raises."""
    label = torch.empty(500, dtype=torch.long, device='meta')
    z = torch.empty(500, 8, device='meta', requires_grad=True)
    hard = torch.empty(500, dtype=torch.bool, device='meta')
    prototypes, present = torch.empty(4, 8, device='meta'), torch.empty(4, dtype=torch.bool, device='meta')
    probability = negative_classes(prototypes, present, 0.5)
    queries, negatives = draw(label, hard, probability, 6, 7)
    contrastive_loss(z, prototypes, present, queries, negatives, 0.5).backward()
    assert z.grad.shape == z.shape


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


def _update_on_one_rank(rank: int, folder: str) -> None:
    dist.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    kept = ClassPrototypes(3, 2)
    kept.update(torch.full((3, 2), float(rank + 1)), torch.tensor([[0, 0, 255], [0, 1, 1]][rank]))
    torch.save(kept.state_dict(), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


def test_processes_share_their_prototypes(tmp_path):
    # forked, as data loaders fork their workers: a spawned process would import everything again
    start_processes(_update_on_one_rank, (str(tmp_path),), nprocs=2, start_method='fork')
    found = [torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1)]
    assert same(*found)
    assert found[0]['seen'].tolist() == [True, True, False]
    torch.testing.assert_close(found[0]['value'], torch.tensor([[4 / 3] * 2, [2, 2], [0, 0]]))


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
def test_rescaling_is_pil_s(size, scales, seed):
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


def test_what_rescaling_draws():
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
    assert (rescale.corner == room)[room[:, 0] > 10].any(0).all(), 'the last corner is drawn, too'
    whole = Rescale.draw(3, size, (1.0, 1.0))
    images = torch.randn(3, 2, *size)
    torch.testing.assert_close(whole.image(images), images)


def test_flipping_takes_everything_along():
    maps = torch.randn(3, 2, 4, 5)
    chosen = torch.tensor([True, False, True])
    found = flipped(maps, chosen)
    assert torch.equal(found[1], maps[1])
    assert torch.equal(found[::2], maps[::2].flip(3))


def test_the_strong_view_keeps_images_and_labels_together():
    """Images whose color is their label stay so through all of it."""
    case = TestCSSMix()
    for mix in ('cutmix', 'classmix', None):
        model = case.build(mix=mix, scale_range=(0.8, 1.6))
        label = torch.randint(CLASSES, (4, 1, 5, 5)).repeat_interleave(13, 2).repeat_interleave(13, 3)
        images, targets = model.strong_view(label.float().expand(-1, 3, -1, -1), Targets(label, label / 10))
        named = targets.label[:, 0] != 255
        shown = images[:, 0].round().long()
        assert (shown == targets.label[:, 0])[named].float().mean() > 0.9, mix  # but at the edges
        torch.testing.assert_close(targets.confidence[:, 0][named], targets.label[:, 0][named] / 10)
        assert not targets.confidence[:, 0][~named].any()
    model = case.build(mix='cutout', scale_range=(1.0, 1.0))
    images, targets = model.strong_view(torch.ones(4, 3, *CROP), Targets(label * 0, label / 10 + 0.1))
    cut = targets.label[:, 0] == 255
    assert cut.flatten(1).float().mean(1).tolist() == pytest.approx([0.5] * 4, abs=0.02)
    assert not images[:, 0][cut].any() and not targets.confidence[:, 0][cut].any()
    torch.testing.assert_close(images[:, 0][~cut], torch.ones(int((~cut).sum())))


@pytest.mark.parametrize('average_over', ['positive', 'labeled'])
def test_the_classifier_s_loss(average_over):
    model = TestCSSBaseline().build(average_over=average_over, threshold=0.7)
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
    found = model.unsupervised_loss(logits, label, confidence)
    assert found.item() == pytest.approx(total / count, rel=1e-6)


def test_defaults_are_the_published_ones():
    model = build_model(dict(type='allspark_mmseg.CSSMix', segmentor=with_representations(tiny_segmentor())))
    assert isinstance(model, CSSMix)
    found = (model.threshold, model.weak_threshold, model.hard_threshold, model.contrast_temperature)
    assert found == (0.97, 0.7, 0.8, 0.5)
    assert (model.queries, model.negatives, model.prototypes.momentum) == (256, 512, 0.01)
    assert (model.mix, model.scale_range, model.predict_on) == ('cutmix', (0.5, 1.5), 'teacher')
    assert model.teacher.policies == {'': 'leave'}
    baseline = build_model(
        dict(type='allspark_mmseg.CSSBaseline', segmentor=with_representations(tiny_segmentor()))
    )
    assert (baseline.hard_threshold, baseline.teacher_statistics) == (0.97, 'weak')


def test_the_contrast_s_weight_without_ramp_is_constant():
    model = TestCSSMix().build(contrast_ramp_down=None, contrast_weight=0.3)
    for steps in (0, 7, 10**6):
        model.teacher.steps.fill_(steps)
        assert model.weight().item() == pytest.approx(0.3)
    entries = train_steps(model, [TestCSSMix().batch()])[0][0]
    assert entries['unsup.loss_contrast'] > 0
