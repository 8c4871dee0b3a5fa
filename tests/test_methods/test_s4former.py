"""S4Former: the contract of every method, its passes and its losses."""

import pytest
import torch
from torch import nn

from allspark_mmseg.methods.s4former import segmentor as segmentor_module
from allspark_mmseg.methods.s4former.patch_attention import patch_adaptive_bias, unconfident_share
from allspark_mmseg.methods.s4former.patch_shuffle import shuffle, unshuffle
from allspark_mmseg.pseudo_label import PseudoLabel, pseudo_label_loss

from ..helpers.method_contract import MethodContract
from ..helpers.s4former import CROP, naive_ranking, tiny_vit
from ..helpers.tiny_models import CLASSES, batch, losses_in, tiny_head, tiny_segmentor


class TestS4Former(MethodContract):
    method = 'allspark_mmseg.S4Former'
    plain = staticmethod(tiny_vit)
    views = ('weak', 'strong_1')
    settings = dict(threshold=0.3, shuffle=dict(block_size=32), cutmix=dict(prob=1.0))
    hyper_parameters = dict(
        teacher=dict(momentum=0.5, warm_up=False),
        labeled_weight=0.7,
        unlabeled_weight=0.7,
        unlabeled_view='weak',
        threshold=0.5,
        attention_weight=0.7,
        attention_strength=2.0,
        perturbed_weight=0.7,
        ranking_weight=0.7,
        cutmix=dict(prob=0.0),
        shuffle=dict(block_size=16),
        mix_teacher_logits=False,
        ignore_padding=False,
        average_over='confident',
        ramp_up=5,
    )

    def build(self, segmentor: dict | None = None, **overrides):
        if segmentor and segmentor['backbone']['type'] != tiny_vit()['backbone']['type']:
            overrides = dict(attention_weight=0) | overrides  # all but that branch takes any backbone
        return super().build(segmentor, **overrides)

    def batch(self, *args, size=CROP, **kwargs):
        return batch(*args, size=size, views=self.views, **kwargs)

    def test_the_passes_and_losses_are_the_formulas(self, monkeypatch):
        """The images, the bias and the loss of each pass."""
        model = self.build(cutmix=dict(prob=1.0), shuffle=dict(block_size=32, prob=1.0))
        with torch.no_grad():
            for value in model.teacher.parameters():
                value.add_(0.1 * torch.randn_like(value))
        seen, decoded, drawn = [], [], {}
        model.student.backbone.register_forward_hook(
            lambda _, given, options, answer: seen.append((given[0], options.get('attention_bias'))),
            with_kwargs=True,
        )
        model.decode_head.register_forward_hook(lambda _, given, logits: decoded.append((given[0], logits)))
        for name, source in (('boxes', model.cutmix), ('permutation', model.shuffle)):

            def draw(*args, name=name, original=source.draw):
                drawn[name] = original(*args)
                return drawn[name]

            source.draw = draw
        inputs, data_samples = self.batch(2, 3)
        losses = model.loss(inputs, data_samples)

        with torch.no_grad():
            teacher = model.teacher.module
            logits = model.resize_to_input(teacher.decode_head(teacher.extract_feat(inputs['weak'])), CROP)
        confidence, label = logits.softmax(1).max(1)
        confident = confidence > 0.3
        assert 0.05 < confident.float().mean() < 0.95
        target = label.where(confident, torch.tensor(255))
        target[:, CROP[0] // 2 :] = 255  # padding
        (labeled, none), (attended, bias), (perturbed, also_none) = seen
        assert none is None and also_none is None
        assert torch.equal(labeled, inputs['labeled']) and torch.equal(attended, inputs['strong_1'])
        torch.testing.assert_close(bias, patch_adaptive_bias(unconfident_share(confident, 8), 5.0))

        boxes, permutation = drawn['boxes'], drawn['permutation']
        assert boxes.flatten(1).any(1).all()
        mixed = torch.where(boxes[:, None], inputs['strong_1'].roll(-1, 0), inputs['strong_1'])
        assert torch.equal(perturbed, shuffle(mixed, permutation, (2, 2)))
        with torch.no_grad():
            feature = model.extract_feat(perturbed)[1]
        torch.testing.assert_close(decoded[2][0][1], unshuffle(feature, permutation, (2, 2)))

        def cross_entropy(logits, target):
            loss = nn.functional.cross_entropy(logits, target, ignore_index=255, reduction='sum')
            return loss / target.numel()

        logits_of = [model.resize_to_input(each.detach(), CROP) for _, each in decoded]
        target_mixed = torch.where(boxes, target.roll(-1, 0), target)
        logits_mixed = torch.where(boxes[:, None], logits.roll(-1, 0), logits)
        expected = dict(
            attention=cross_entropy(logits_of[1], target),
            perturbed=cross_entropy(logits_of[2], target_mixed),
            ranking=naive_ranking(logits_of[2], logits_mixed, target_mixed),
        )
        for name, value in expected.items():
            torch.testing.assert_close(losses[f'unsup.loss_{name}'].detach(), 0.5 * value)
        assert {name for name in losses if name.startswith('unsup.')} == {
            f'unsup.loss_{name}' for name in expected
        }

    def test_half_as_many_confident_pixels_make_half_the_loss(self):
        model = self.build()
        logits = torch.zeros(2, CLASSES, 8, 8)
        logits[:, 1] = 9
        whole = PseudoLabel.from_logits(logits, 0.95)
        half = PseudoLabel.from_logits(torch.where(torch.arange(8) < 4, logits, 0.0), 0.95)
        of_student = torch.randn(2, CLASSES, 1, 1).expand_as(logits)
        losses = [pseudo_label_loss(of_student, pseudo, model.average_over) for pseudo in (whole, half)]
        torch.testing.assert_close(losses[1], losses[0] / 2)

    def test_a_confidence_equal_to_the_threshold_does_not_count(self):
        model = self.build(threshold=1 / CLASSES, attention_weight=0)
        model.teacher.module.decode_head.forward = lambda features: torch.zeros(2, CLASSES, 64, 64)
        entries = model.loss(*self.batch())
        assert entries['pseudo.confidence'] == 1 / CLASSES
        assert entries['pseudo.confident'] == 0
        assert losses_in(entries, 'unsup.') == 0

    def test_without_its_own_terms_it_equals_mean_teacher(self):
        options = dict(attention_weight=0, ranking_weight=0, perturbed_weight=1)
        model = self.build(cutmix=dict(prob=0), shuffle=dict(block_size=32, prob=0), **options)
        inputs, data_samples = self.batch()
        losses = model.loss(inputs, data_samples)
        logits = model.resize_to_input(model.decode_head(model.extract_feat(inputs['strong_1'])), CROP)
        pseudo = model.make_pseudo_labels(inputs['weak'], 0.3, model.padding_mask(data_samples, 'weak'))
        expected = nn.functional.cross_entropy(logits, pseudo.target, ignore_index=255, reduction='sum')
        torch.testing.assert_close(losses_in(losses, 'unsup.'), expected / pseudo.target.numel())

    def test_the_default_teacher_is_the_released_one(self):
        teacher = self.build().teacher
        assert (teacher.momentum, teacher.warm_up) == (0.001, False)
        assert self.build(teacher=dict(momentum=0.01)).teacher.warm_up

    def test_unsupported_students_are_refused(self):
        with pytest.raises(ValueError, match=r'backbone is a MixVisionTransformer.*attention_weight=0'):
            super().build(tiny_segmentor())
        with pytest.raises(ValueError, match=r'block_size is 20, expected a multiple of .* 8'):
            self.build(shuffle=dict(block_size=20))
        with pytest.raises(ValueError, match="average_over is 'none'"):
            self.build(average_over='none')

    def test_crops_that_blocks_cannot_tile_are_refused(self):
        model = self.build()
        with pytest.raises(
            ValueError, match=r'block_size=32 pixels cannot tile the crop of 64 x 72 \(H x W\)'
        ):
            model.check_input_size(torch.zeros(1, 3, 64, 72))
        model.check_input_size(torch.zeros(1, 3, 64, 96))

    def test_each_feature_level_is_unshuffled(self):
        torch.manual_seed(0)
        options = dict(shuffle=dict(block_size=32, prob=1.0), cutmix=dict(prob=0))
        model = self.build(tiny_segmentor(decode_head=tiny_head()), **options)
        assert torch.isfinite(losses_in(model.loss(*self.batch()), 'unsup.'))
        fine = self.build(tiny_segmentor(decode_head=tiny_head()), shuffle=dict(block_size=16))
        with pytest.raises(ValueError, match=r'\(2, 2\) cannot be put back in blocks of a \(4, 4\) grid'):
            fine.loss(*self.batch())

    def test_each_pass_runs_the_network_once(self, monkeypatch):
        """The release computes the ranking in the attention pass, too, and does not use it."""
        called = []
        original = segmentor_module.negative_class_ranking
        monkeypatch.setattr(
            segmentor_module, 'negative_class_ranking', lambda *args: called.append(1) or original(*args)
        )
        model = self.build()
        passes = []
        model.student.backbone.register_forward_hook(lambda *_: passes.append(1))
        model.loss(*self.batch())
        assert len(passes) == 3 and len(called) == 1
