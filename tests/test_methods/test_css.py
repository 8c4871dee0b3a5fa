"""The CSS methods: the contract of every CSS method, their targets and their hard pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from allspark_mmseg.methods import CSSMix
from allspark_mmseg.methods.css import Targets
from allspark_mmseg.methods.css.strong_view import make_strong_view
from allspark_mmseg.methods.loss_weights import rampdown_weight

from ..helpers.css_contract import CHANNELS, CSSContract, SimilarityContract, with_representations
from ..helpers.tiny_models import CLASSES, CROP, build_model, losses_in, tiny_segmentor, train_steps


class TestCSSBaseline(CSSContract):
    method = 'allspark_mmseg.CSSBaseline'

    def test_pixels_below_the_threshold_are_hard(self):
        model = self.build(hard_threshold=0.5)
        logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).T[None, :, None]  # two classes, two pixels
        label = torch.tensor([[[0, 1]]])
        assert model.hard_pixels(logits, None, label).tolist() == [[[False, False]]]  # 0.5 is not below 0.5
        assert model.hard_pixels(logits, None, 1 - label).tolist() == [[[True, False]]]

    def test_training_separates_the_classes(self):
        """On one batch of two images whose quarters are the classes, in colors of their own."""
        model = self.build(contrast_ramp_down=None, weak_threshold=0.0, scale_range=(1.0, 1.0), mix=None)
        optimizer = torch.optim.SGD(model.student.parameters(), lr=0.05, momentum=0.9)
        inputs, data_samples = self.batch()
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


class TestCSSMix(SimilarityContract):
    method = 'allspark_mmseg.CSSMix'
    hyper_parameters = SimilarityContract.hyper_parameters | dict(count_ignored=True)

    @pytest.mark.parametrize('count_ignored', [False, True])
    def test_pixels_of_disagreement_have_no_label(self, count_ignored):
        model = self.build(count_ignored=count_ignored)
        model.prototypes.value.copy_(torch.randn(CLASSES, CHANNELS))
        model.prototypes.seen.fill_(True)
        logits, z = torch.randn(2, CLASSES, 9, 9), torch.randn(2, CHANNELS, 9, 9)
        padding = torch.zeros(2, 9, 9, dtype=torch.bool)
        padding[:, :, 7:] = True
        targets, numbers = model.make_targets(logits, z, (9, 9), padding)
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

    def test_the_contrast_weight_is_constant_without_a_ramp(self):
        model = self.build(contrast_ramp_down=None, contrast_weight=0.3)
        for steps in (0, 7, 10**6):
            model.teacher.steps.fill_(steps)
            assert rampdown_weight(model.teacher.steps, model.contrast_ramp_down) == 1
        step = self.batch()
        entries, halved = (
            train_steps(self.build(contrast_ramp_down=None, contrast_weight=weight), [step])[0][0]
            for weight in (0.3, 0.15)
        )
        assert entries['unsup.loss_contrast'] > 0
        torch.testing.assert_close(entries['unsup.loss_contrast'], 2 * halved['unsup.loss_contrast'])


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
            targets, _ = model.make_targets(logits, z, (9, 9), None)
            assert torch.equal(targets.label, torch.stack([expected.indices, by_logit.indices], 1))
            confidence = torch.stack([expected.values, by_logit.values], 1)
            torch.testing.assert_close(targets.confidence, confidence, rtol=1e-5, atol=1e-6)

    def test_a_threshold_beyond_the_largest_similarity_is_refused(self):
        with pytest.raises(ValueError, match=r'threshold is 0\.97.*loss on pseudo-labels would always be 0'):
            self.build(threshold=0.97, hard_threshold=None, similarity_temperature=0.6)
        with pytest.raises(ValueError, match='warm_up is -1'):
            self.build(warm_up=-1)

    def test_classmix_uses_the_labels_of_the_classifier(self, monkeypatch):
        model = self.build(mix='classmix', scale_range=(1.0, 1.0))
        label = torch.stack([torch.full((2, 9, 9), 3), torch.randint(2, (2, 9, 9))], 1)
        images = torch.arange(2.0)[:, None, None, None].expand(2, 3, 9, 9)
        seen = []
        monkeypatch.setattr(
            'allspark_mmseg.mixing.ClassMix.draw',
            lambda self, given: seen.append(given) or torch.zeros_like(given, dtype=torch.bool),
        )
        make_strong_view(
            images, Targets(label, torch.ones(2, 2, 9, 9)), model.scale_range, model.mix, CLASSES
        )
        assert torch.equal(seen[0], label[:, 1])


def test_default_arguments_are_the_published_ones():
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
