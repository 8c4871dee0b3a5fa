"""The teacher and the learning rate of CSS against vectors of its release."""

import pytest
import torch
from mmengine.optim import PolyLR
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from allspark_mmseg.teacher import Teacher

from ..helpers.css_golden import METHODS, close
from ..helpers.golden import strip_prefix
from ..helpers.tiny_models import build_model


def test_the_learning_rate_matches_the_release(golden):
    """MMEngine's schedule, over T + 1 steps, is the released one down to its floor."""
    expected = golden('css')['poly.lr_used_in_10_steps_from_0.5_floor_0.1']
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = PolyLR(optimizer, eta_min=0.0, power=0.9, begin=0, end=len(expected) + 1, by_epoch=False)
    found = []
    for _ in expected:
        found.append(max(optimizer.param_groups[0]['lr'], 0.1))
        optimizer.step()
        schedule.step()
    close(torch.tensor(found, dtype=torch.float64), expected)


@MMSEG_MODELS.register_module()
class NormedHead(BaseDecodeHead):
    """Two 1x1 convolutions behind one batch norm."""

    def __init__(self):
        super().__init__(
            in_channels=3,
            channels=3,
            num_classes=4,
            loss_decode=dict(type='CrossEntropyLoss'),
            dropout_ratio=0,
        )
        self.bn = nn.BatchNorm2d(3)
        self.representation_channels = 6
        self.representation = nn.Conv2d(3, 6, 1)

    def forward(self, features):
        return self.forward_with_representations(features)[0]

    def forward_with_representations(self, features):
        normed = self.bn(features[0])
        return self.conv_seg(normed), self.representation(normed)

    def vector(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.ordered())

    def ordered(self) -> list:
        parts = (self.bn, self.conv_seg, self.representation)
        return [parameter for part in parts for parameter in (part.weight, part.bias)]


@pytest.mark.parametrize('name', ['mix', 'baseline'])
def test_the_teacher_and_its_statistics_match_the_release(golden, name):
    vectors = strip_prefix(golden('css'), f'ema.{name}.')
    segmentor = dict(
        type='EncoderDecoder',
        backbone=dict(type='RecordedFeatures'),
        decode_head=dict(type='NormedHead'),
        test_cfg=dict(mode='whole'),
    )
    model = build_model(dict(type=f'allspark_mmseg.{METHODS[name]}', segmentor=segmentor)).train()
    student, teacher = model.decode_head, model.teacher.module.decode_head
    with torch.no_grad():
        for head in (student, teacher):
            nn.utils.vector_to_parameters(vectors['teacher'][0], head.ordered())
    for step in range(len(vectors['student'])):
        model.teach(vectors['images_labeled'][step], vectors['images_unlabeled'][step])
        found = torch.stack([teacher.bn.running_mean, teacher.bn.running_var])
        with torch.no_grad():
            nn.utils.vector_to_parameters(vectors['student'][step], student.ordered())
        student.bn.running_mean.fill_(9)
        model.teacher.update_parameters(model.student)
        close(teacher.vector(), vectors['teacher'][step + 1], f'parameters {step}')
        close(found, vectors['teacher_bn_mean_var'][step], f'statistics {step}')
        assert torch.equal(found[0], teacher.bn.running_mean), 'the student reached them'


def test_a_long_average_matches_the_release(golden):
    vectors = strip_prefix(golden('css'), 'ema.long.')
    student = nn.Linear(1, 1, bias=False)
    teacher = Teacher(student, momentum=0.01, buffers='leave')
    found = []
    for value in vectors['student']:
        with torch.no_grad():
            student.weight.fill_(value)
        teacher.update_parameters(student)
        found.append(teacher.module.weight.detach().flatten().clone())
    close(torch.cat(found), vectors['teacher'])
