"""Mean Teacher: the contract of every method, its ramp and its formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from allspark_mmseg.methods.loss_weights import rampup_weight

from ..helpers.fixmatch_contract import NOT_PADDING, resized, with_other_teacher
from ..helpers.method_contract import MethodContract
from ..helpers.recorder import CallRecorder
from ..helpers.tiny_models import train_steps


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
    def test_the_weight_rises_strictly_to_one(self, ramp_up):
        model = self.build(ramp_up=ramp_up)
        found = []
        for step in range(ramp_up + 3):
            model.teacher.steps.fill_(step)
            found.append(rampup_weight(model.teacher.steps, model.ramp_up).item())
        assert found[0] == pytest.approx(math.exp(-5), rel=1e-6)
        assert found[ramp_up // 2] == pytest.approx(math.exp(-5 * (1 - (ramp_up // 2) / ramp_up) ** 2))
        assert found[ramp_up:] == [1, 1, 1]
        assert found[: ramp_up + 1] == sorted(set(found)), 'not strictly rising'
        assert not rampup_weight(model.teacher.steps, model.ramp_up).requires_grad

    def test_without_a_ramp_the_weight_is_one(self):
        model = self.build(ramp_up=0)
        for step in (0, 1, 1000):
            model.teacher.steps.fill_(step)
            assert rampup_weight(model.teacher.steps, model.ramp_up) == 1
        assert rampup_weight(model.teacher.steps, model.ramp_up).dtype == torch.float32

    def test_the_ramp_continues_from_a_checkpoint(self):
        model, again = self.build(ramp_up=5), self.build(ramp_up=5)
        logged, _ = train_steps(model, [self.batch()] * 3)
        weights = [math.exp(-5 * (1 - t / 5) ** 2) for t in range(4)]
        assert [entries['pseudo.weight'].item() for entries in logged] == pytest.approx(weights[:3])
        again.load_state_dict(model.state_dict())
        ((entries,), _) = train_steps(again, [self.batch()])
        assert entries['pseudo.weight'].item() == pytest.approx(weights[3])

    def test_loss_is_the_formula(self):
        """The teacher's labels, of the weak view and where confident, for the student's strong view."""
        inputs, data_samples = self.batch(1, 2)
        model = self.build(ramp_up=10, unlabeled_weight=0.8, ignore_padding=True, threshold=0.4)
        with_other_teacher(model)
        model.teacher.steps.fill_(4)
        labels, student = CallRecorder(model.teacher.module.decode_head), CallRecorder(model.decode_head)
        backbone = CallRecorder(model.student.backbone)
        entries = model.loss(inputs, data_samples)
        assert len(labels.outputs) == len(student.outputs) == 1
        assert torch.equal(backbone.inputs[0], torch.cat([inputs['labeled'], inputs['strong_1']]))
        confidence, label = resized(labels.outputs[0])[:, :, NOT_PADDING].softmax(1).max(1)
        assert 0.1 < (confidence >= 0.4).float().mean() < 0.9
        expected = F.cross_entropy(
            resized(student.outputs[0][1:])[:, :, NOT_PADDING], label.masked_fill(confidence < 0.4, 255),
            ignore_index=255,
        )  # fmt: skip
        weight = math.exp(-5 * (1 - 4 / 10) ** 2)
        torch.testing.assert_close(entries['unsup.loss_ce'], 0.8 * weight * expected)
        with torch.no_grad():
            alone = model.teacher.module.decode_head(model.teacher.module.extract_feat(inputs['weak']))
        torch.testing.assert_close(labels.outputs[0], alone)

    def test_a_negative_ramp_is_refused(self):
        with pytest.raises(ValueError, match='MeanTeacher: ramp_up is -1, expected a number of steps'):
            self.build(ramp_up=-1)
