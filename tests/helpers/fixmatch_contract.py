"""What FixMatch, UniMatch and UniMatch V2 have in common: CutMix of strong views and the loss on them."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from allspark_mmseg.mixing import MixSource

from .method_contract import MethodContract
from .recorder import CallRecorder
from .tiny_models import CROP, losses_in

NOT_PADDING = slice(0, CROP[0] // 2)  # rows
UNIMATCH_VIEWS = tuple(prefix + view for prefix in ('', 'mix_') for view in ('weak', 'strong_1', 'strong_2'))


def resized(logits: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits.detach(), CROP, mode='bilinear')


def fixmatch_loss(student: torch.Tensor, teacher: torch.Tensor, threshold: float) -> torch.Tensor:
    """The formula, on logits (N, K, h, w) of unmixed images whose lower half is padding."""
    confidence, label = resized(teacher).softmax(1).max(1)
    per_pixel = F.cross_entropy(resized(student), label, reduction='none')
    return (per_pixel * (confidence >= threshold))[:, NOT_PADDING].mean()


def with_other_teacher(model: nn.Module) -> nn.Module:
    """The model with a teacher that differs from the student."""
    with torch.no_grad():
        for value in model.teacher.parameters():
            value.add_(0.03 * torch.randn_like(value))
    return model


class FixMatchContract(MethodContract):
    """Inherit it in a ``Test...`` class and set the attributes.

    Attributes:
        strong_views: Names of the strong views.
        labels_mix_source_first: Whether the teacher labels ``mix_weak`` before ``weak``.
    """

    settings = dict(threshold=0.3)
    hyper_parameters = dict(
        threshold=0.5,
        labeled_weight=0.7,
        strong_weight=0.7,
        cutmix=dict(prob=1.0),
        mix_source='same_image',
        ignore_padding=False,
    )
    strong_views: tuple[str, ...]
    labels_mix_source_first = True

    def build_unmixed(self, **overrides) -> nn.Module:
        return self.build(cutmix=dict(prob=0.0), **overrides)

    def strong_logits(self, head: CallRecorder) -> list[torch.Tensor]:
        """The student's logits of each strong view, of two unlabeled images."""
        return list(head.outputs[-1][-2 * len(self.strong_views) :].split(2))

    def weak_logits(self, head: CallRecorder, teacher_head: CallRecorder | None) -> torch.Tensor:
        """The logits of the pseudo-labels, of two unlabeled images."""
        return head.outputs[0][1:3] if teacher_head is None else teacher_head.outputs[0]

    def record_cutmix(self, monkeypatch) -> list[tuple[tuple, tuple]]:
        """Record the arguments and the result of each call of ``cutmix_views`` by the method."""
        module = importlib.import_module(type(self.build()).__module__)
        calls, original = [], module.cutmix_views

        def record(*arguments):
            calls.append((arguments, original(*arguments)))
            return calls[-1][1]

        monkeypatch.setattr(module, 'cutmix_views', record)
        return calls

    @pytest.mark.parametrize('teacher', [None, {}])
    def test_loss_is_the_formula(self, teacher):
        model = self.build_unmixed(teacher=teacher)
        labeler, teacher_head = model.student, None
        if model.teacher is not None:
            labeler = with_other_teacher(model).teacher.module
            teacher_head = CallRecorder(labeler.decode_head)
        head, backbone = CallRecorder(model.decode_head), CallRecorder(labeler.backbone)
        inputs, data_samples = self.batch(1, 2)
        entries = model.loss(inputs, data_samples)
        assert torch.equal(backbone.inputs[0][-2:], inputs['weak'])
        weak = self.weak_logits(head, teacher_head)
        confident = (resized(weak).softmax(1).amax(1) >= 0.3)[:, NOT_PADDING].float().mean()
        assert 0.1 < confident < 0.9
        torch.testing.assert_close(entries['pseudo.confident'], confident)
        for view, logits in zip(self.strong_views, self.strong_logits(head), strict=True):
            expected = model.strong_weight * fixmatch_loss(logits, weak, 0.3)
            torch.testing.assert_close(entries[f'unsup.loss_{view}'].detach(), expected)
        if teacher_head is not None:
            assert teacher_head.training == [False]

    def test_a_batch_of_padding_gives_no_unsupervised_loss(self):
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
    def test_cutmix_gets_the_views_the_pseudo_labels_and_their_source(self, source, monkeypatch):
        calls = self.record_cutmix(monkeypatch)
        model = self.build(mix_source=source, cutmix=dict(prob=1.0))
        inputs, data_samples = self.batch(2, 3)
        pasted = model.make_pseudo_labels(
            inputs['mix_weak'], model.threshold, model.padding_mask(data_samples, 'mix_weak')
        )
        model.loss(inputs, data_samples)
        ((views, pseudo, boxes, given_source), _), *others = calls
        assert not others
        for images, view in zip(views, self.strong_views, strict=True):
            assert torch.equal(images, inputs[view])
        assert torch.equal(pseudo.image_mask, ~model.padding_mask(data_samples, 'weak'))
        assert len(boxes) == len(self.strong_views)
        assert all(mask.flatten(1).any(1).all() for mask in boxes)
        assert len(boxes) == 1 or not torch.equal(*boxes), 'each view has a box of its own'
        if source == 'batch':
            assert given_source is None
        else:
            assert isinstance(given_source, MixSource)
            for images, view in zip(given_source.views, self.strong_views, strict=True):
                assert torch.equal(images, inputs[f'mix_{view}'])
            assert torch.equal(given_source.pseudo.target, pasted.target)
            assert torch.equal(given_source.pseudo.image_mask, pasted.image_mask)

    def test_a_batch_of_one_image_is_not_mixed_with_itself(self, monkeypatch):
        calls = self.record_cutmix(monkeypatch)
        inputs, data_samples = self.batch(1, 1)
        losses_in(self.build(cutmix=dict(prob=1.0)).loss(inputs, data_samples)).backward()
        ((_, pseudo, *_), (mixed, mixed_pseudo)) = calls[0]
        for view, images in zip(self.strong_views, mixed, strict=True):
            assert torch.equal(images, inputs[view])
        for label in mixed_pseudo:
            assert torch.equal(label.target, pseudo.target)
        self.build(mix_source='same_image', cutmix=dict(prob=1.0)).loss(inputs, data_samples)
        (_, (mixed, _)) = calls[1]
        assert not torch.equal(mixed[0], inputs['strong_1'])

    def test_the_network_sees_the_mixed_images(self, monkeypatch):
        calls = self.record_cutmix(monkeypatch)
        model = self.build(cutmix=dict(prob=1.0))
        inputs, data_samples = self.batch()
        backbone = CallRecorder(model.student.backbone)
        model.loss(inputs, data_samples)
        ((_, (mixed, _)),) = calls
        expected = torch.cat(mixed)
        assert torch.equal(backbone.inputs[-1][-len(expected) :], expected)
        assert not torch.equal(expected, torch.cat([inputs[view] for view in self.strong_views]))

    def test_pasted_images_are_labeled_before_the_statistics_move(self):
        """In eval mode, by the network as it is before this step."""
        model, again = (self.build(mix_source='same_image') for _ in range(2))
        inputs, data_samples = self.batch()
        head = CallRecorder((model if model.teacher is None else model.teacher.module).decode_head)
        model.loss(inputs, data_samples)
        expected = again.make_pseudo_labels(inputs['mix_weak']).logits
        call = head.training.index(False) if model.teacher is None else 1 - int(self.labels_mix_source_first)
        torch.testing.assert_close(resized(head.outputs[call]), expected)

    def test_arguments_out_of_range_are_refused(self):
        name = self.method.rpartition('.')[-1]
        with pytest.raises(ValueError, match=rf'{name}: threshold is 1.5'):
            self.build(threshold=1.5)
        with pytest.raises(ValueError, match=rf"{name}: mix_source is 'other', expected one of \('batch', "):
            self.build(mix_source='other')
        with pytest.raises(ValueError, match='CutMix: prob is 2'):
            self.build(cutmix=dict(prob=2))
