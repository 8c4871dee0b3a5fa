"""The contract of every CSS method, on tiny networks."""

from contextlib import nullcontext

import pytest
import torch

from allspark_mmseg.methods.css import Targets
from allspark_mmseg.pseudo_label import PseudoLabel

from .method_contract import MethodContract
from .tiny_models import CLASSES, CROP, build_model, gradients, losses_in, same, tiny_resnet, tiny_segmentor

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

    def test_teacher_statistics_can_follow_the_student(self):
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
        model.make_targets = lambda *_: (
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
    def test_the_step_never_synchronizes_with_the_device(self, mix, monkeypatch):
        """Meta tensors have no data, so that asking for a value or for a number of pixels raises."""
        monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # has no meta device
        model = self.build(mix=mix).to('meta')
        model.supervised_loss = lambda *_: {}  # MMSegmentation's accuracy waits
        inputs, data_samples = self.batch()
        entries = model.loss(
            {name: view.to('meta') for name, view in inputs.items()},
            {name: [sample.to('meta') for sample in view] for name, view in data_samples.items()},
        )
        losses_in(entries).backward()
        assert all(value.is_meta for value in entries.values())

    def test_the_log_has_statistics_of_the_contrast(self):
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
            ('threshold', {'type': 'ClassBalanced'}),
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


class SimilarityContract(CSSContract):
    hyper_parameters = CSSContract.hyper_parameters | dict(similarity_temperature=0.3)

    @pytest.mark.parametrize('classes, highest', [(21, 0.732), (19, 0.752)])
    def test_an_unreachable_threshold_is_refused(self, classes, highest):
        """With the release's temperature of 0.5; the highest softmax similarity as the error gives it."""
        segmentor = with_representations(tiny_segmentor())
        segmentor['decode_head']['num_classes'] = classes
        config = dict(type=self.method, segmentor=segmentor, similarity_temperature=0.5)
        match = rf'hard_threshold is 0\.8.*{classes} classes.*exceeds {highest}.*every pixel.*None'
        with pytest.raises(ValueError, match=match):
            build_model(config | dict(hard_threshold=0.8))
        build_model(config | dict(hard_threshold=highest - 0.001, threshold=0.7))
        assert build_model(config | dict(hard_threshold=None, threshold=0.7)).hard_threshold is None

    def test_pixels_below_the_threshold_are_hard(self):
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
        assert torch.equal(model.hard_pixels(None, z, label)[label < 255], (own < 0.7)[label < 255])
        model.hard_threshold = None
        assert model.hard_pixels(None, z, label).all()

    def test_before_any_class_is_seen_similarity_is_unsure(self):
        model = self.build()
        logits = torch.randn(2, CLASSES, 9, 9)
        by_similarity = model.label_by_similarity(torch.randn(2, CHANNELS, 9, 9), (17, 17), None)
        by_logit = PseudoLabel.from_logits(model.resize_to_input(logits, (17, 17)), model.threshold)
        torch.testing.assert_close(by_similarity.confidence, torch.full((2, 17, 17), 1 / CLASSES))
        assert by_logit.confidence.max() > 0.5

    def test_a_class_not_seen_is_never_predicted(self):
        model = self.build()
        model.prototypes.value[1:] = -torch.randn(CLASSES - 1, CHANNELS).abs()
        model.prototypes.seen[1:] = True
        z = torch.rand(2, CHANNELS, 9, 9)  # all cosines of the classes seen are negative
        by_similarity = model.label_by_similarity(z, (17, 17), None)
        assert by_similarity.label.min() > 0
