"""The contract of every semi-supervised method, on tiny networks."""

import inspect
import io

import pytest
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from allspark_mmseg.methods import SemiSegmentor

from .tiny_models import (
    CLASSES,
    CROP,
    batch,
    build_model,
    gradients,
    losses_in,
    same,
    tiny_resnet,
    tiny_segmentor,
    train_steps,
)


class MethodContract:
    """Tests that every method passes. Inherit it in a ``Test...`` class and set the attributes.

    Attributes:
        method: The registered type of the method.
        plain: Makes the config of a plain segmentor that the method can train.
        views: The unlabeled views of a batch: those that the method needs, and those that a setting needs.
        settings: Arguments of the method for a tiny network, for example a low threshold.
        hyper_parameters: Each keyword of the method -> a value other than its default. It must change a loss
            or the state after two steps. Arguments of a part of the student can be added.
    """

    method: str
    plain = staticmethod(tiny_segmentor)
    views: tuple[str, ...] = ('weak',)
    settings: dict = {}
    hyper_parameters: dict = {}

    def wrapped(self, segmentor: dict, **_) -> dict:
        """Config of the student that the method needs, from a plain one."""
        return segmentor

    def build(self, segmentor: dict | None = None, **overrides):
        """Build the method around a plain segmentor; ``overrides`` are arguments of the method."""
        torch.manual_seed(0)
        student = self.wrapped(segmentor or self.plain(), **overrides)
        own = self.settings | overrides
        own = {
            name: value for name, value in own.items() if name in {'teacher', 'predict_on', *self.keywords()}
        }
        return build_model(dict(type=self.method, segmentor=student, **own)).train()

    def batch(self, *args, **kwargs) -> tuple[dict, dict]:
        return batch(*args, views=self.views, **kwargs)

    @classmethod
    def keywords(cls) -> set[str]:
        """Names of the keyword arguments that the method adds to ``SemiSegmentor``'s."""
        own = inspect.getmro(MODELS.get(cls.method))
        own = own[: own.index(SemiSegmentor)]
        return {
            name
            for owner in own
            for name, argument in inspect.signature(owner.__init__).parameters.items()
            if argument.kind is argument.KEYWORD_ONLY
        }

    def test_losses_are_finite_and_named(self):
        model = self.build()
        entries = model.loss(*self.batch())
        for name, value in entries.items():
            assert torch.isfinite(value).all(), name
            assert value.requires_grad == ('loss' in name), f'{name}: losses alone carry a gradient'
            assert 'loss' not in name or name.startswith(('sup.', 'unsup.')), name
        assert any('loss' not in name for name in entries), 'no statistic for the log'
        total, _ = model.parse_losses(entries)  # what MMEngine optimizes
        torch.testing.assert_close(total, losses_in(entries))

    @pytest.mark.parametrize('term', ['unsup.', 'sup.'])
    def test_each_part_alone_moves_the_student(self, term):
        model = self.build()
        losses_in(model.loss(*self.batch()), term).backward()
        found = gradients(model.student)
        assert all(torch.isfinite(gradient).all() for gradient in found.values())
        for part in ('backbone.', 'decode_head.'):
            moved = [name for name, g in found.items() if name.startswith(part) and g.abs().max() > 0]
            assert moved, f'{term}loss gives the {part[:-1]} no gradient'
        outside = [name for name in gradients(model) if not name.startswith('student.')]
        assert not outside, f'gradients outside the student: {outside}'

    @pytest.mark.parametrize(
        'counts, ignored', [((1, 1), False), ((1, 3), False), ((3, 1), False), ((2, 2), True), ((1, 1), True)]
    )
    def test_any_batch_gives_finite_losses_and_gradients(self, counts, ignored):
        model = self.build()
        entries = model.loss(*self.batch(*counts, ignored=ignored))
        assert all(torch.isfinite(value).all() for value in entries.values()), entries
        losses_in(entries).backward()
        assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
        if ignored:
            assert losses_in(entries, 'sup.') == 0

    @pytest.mark.parametrize('segmentor', [tiny_segmentor, tiny_resnet])
    def test_modes_are_left_as_they_were(self, segmentor):
        model = self.build(segmentor())
        before = {name: module.training for name, module in model.named_modules()}
        model.loss(*self.batch())
        changed = [name for name, module in model.named_modules() if module.training != before[name]]
        assert not changed
        norms = [m for m in model.student.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert not any(norm.training for norm in norms)
        assert (len(norms) > 0) == (segmentor is tiny_resnet)

    @torch.no_grad()
    @pytest.mark.parametrize('size', [CROP, (97, 70), (40, 131)])
    def test_prediction_fits_the_image_and_ignores_its_neighbors(self, size):
        model = self.build().eval()
        images = torch.randn(2, 3, *size)
        together = model.predict(images)
        for image, sample in zip(images, together, strict=True):
            assert sample.seg_logits.data.shape == (CLASSES, *size)
            assert sample.pred_sem_seg.data.shape == (1, *size)
            (alone,) = model.predict(image[None])
            torch.testing.assert_close(alone.seg_logits.data, sample.seg_logits.data, rtol=1e-5, atol=1e-5)

    @torch.no_grad()
    def test_raw_images_of_any_size_go_through_test_step(self):
        model = self.build().eval()
        sizes = [(70, 91), (65, 40)]
        for size in sizes:
            image = torch.randint(256, (3, *size), dtype=torch.uint8)
            sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
            (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
            assert result.pred_sem_seg.data.shape == (1, *size)

    def test_state_survives_saving(self):
        model = self.build()
        step = self.batch()
        train_steps(model, [step])
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        torch.manual_seed(123)
        again = self.build()
        with torch.no_grad():
            for value in again.state_dict().values():
                value.zero_()  # what is not in the file shows
        again.load_state_dict(torch.load(file, weights_only=True))

        image = torch.randn(1, 3, 70, 91)
        with torch.no_grad():
            predictions = [m.eval().predict(image)[0].seg_logits.data for m in (model, again)]
        assert torch.equal(*predictions)
        logged = [train_steps(m.train(), [step])[0][0] for m in (model, again)]
        assert same(*logged), 'training goes on differently from a loaded state'

    def test_a_missing_view_is_named(self):
        model = self.build()
        inputs, data_samples = self.batch()
        for view in model.needed_views:
            rest = {name: value for name, value in inputs.items() if name != view}
            with pytest.raises(ValueError, match=rf'{view}=\[') as error:
                model.loss(rest, data_samples)
            assert str(sorted(rest)) in str(error.value) or str(list(rest)) in str(error.value)
        with pytest.raises(ValueError, match='no views'):
            model.loss(inputs['labeled'], data_samples['labeled'])

    def test_views_of_unequal_counts_are_refused(self):
        model = self.build()
        inputs, data_samples = self.batch()
        needed = [view for view in model.needed_views if view != 'labeled']
        if len(set(needed)) > 1:
            inputs[needed[-1]] = inputs[needed[-1]][:1]
            with pytest.raises(ValueError, match=f"'{needed[-1]}': 1.* expected equally many"):
                model.loss(inputs, data_samples)

    def test_a_teacher_labels_and_follows_without_gradient(self):
        model = self.build(teacher=dict(momentum=0.25, warm_up=False))
        teacher, student = model.teacher.module, model.student
        assert same(teacher.state_dict(), student.state_dict())
        with torch.no_grad():
            for value in student.parameters():
                value.add_(0.1 * torch.randn_like(value))
        before = {name: value.clone() for name, value in teacher.state_dict().items()}
        used = []
        teacher.decode_head.register_forward_hook(lambda *_: used.append(True))
        losses_in(model.train().loss(*self.batch())).backward()
        assert used, 'the teacher labeled nothing'
        assert not any(module.training for module in model.teacher.modules())
        assert same(before, teacher.state_dict())
        assert all(name.startswith('student.') for name in gradients(model))

        expected = {name: 0.75 * before[name] + 0.25 * value for name, value in student.named_parameters()}
        model.teacher.update_parameters(student)
        for name, value in teacher.named_parameters():
            torch.testing.assert_close(value, expected[name])

    def test_who_predicts_is_chosen(self):
        models = [self.build(teacher=dict(), predict_on=who).eval() for who in ('student', 'teacher')]
        image = torch.randn(1, 3, 70, 91)
        with torch.no_grad():
            for model in models:
                for value in model.student.parameters():
                    value.mul_(1.5)
            found = [model.predict(image)[0].seg_logits.data for model in models]
            expected = [
                segmentor.predict(image)[0].seg_logits.data
                for segmentor in (models[0].student, models[1].teacher.module)
            ]
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
        assert not torch.equal(*found)

    def test_plain_checkpoint_fills_student_and_teacher(self):
        torch.manual_seed(7)
        plain = build_model(self.plain())
        model = self.build(teacher=dict())
        model.teacher.update_parameters(model.student)
        model.load_state_dict(plain.state_dict(), strict=False)
        for segmentor in (model.student, model.teacher.module):
            found = segmentor.state_dict()
            for name, value in plain.state_dict().items():
                name = name if name in found else name.replace('decode_head.', 'decode_head.decoder.')
                assert torch.equal(found[name], value), name
        assert model.teacher.steps == 0

    def test_mixed_precision_ends_before_the_losses(self):
        model = self.build()
        with torch.autocast('cpu', torch.bfloat16):
            entries = model.loss(*self.batch())
        for name, value in entries.items():
            assert torch.isfinite(value).all(), name
            assert 'loss' not in name or value.dtype == torch.float32, name
        losses_in(entries).backward()
        found = gradients(model)
        assert all(torch.isfinite(gradient).all() for gradient in found.values())
        # labeling under autocast must not leave weights behind that have been cast without a gradient
        model = self.build()
        losses_in(model.loss(*self.batch())).backward()
        assert found.keys() == gradients(model).keys()

    def test_training_follows_from_the_seed(self):
        steps = [self.batch(), self.batch()]
        (logged, state), (again, state_again) = (train_steps(self.build(), steps) for _ in range(2))
        assert all(same(*pair) for pair in zip(logged, again, strict=True))
        assert same(state, state_again)

    def test_every_hyper_parameter_matters(self):
        missing = self.keywords() - set(self.hyper_parameters)
        assert not missing, f'hyper_parameters lacks {sorted(missing)}'
        steps = [self.batch(), self.batch()]
        logged, state = train_steps(self.build(), steps)
        for name, value in self.hyper_parameters.items():
            other, other_state = train_steps(self.build(**{name: value}), steps)
            unchanged = all(same(*pair) for pair in zip(logged, other, strict=True))
            assert not (unchanged and same(state, other_state)), f'{name}={value!r} changes nothing'
