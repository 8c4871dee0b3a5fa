"""S4Former: the contract of every method, and its parts; test_s4former_golden.py has the numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allspark_mmseg.methods.s4former import segmentor as segmentor_module
from allspark_mmseg.methods.s4former.class_ranking import negative_class_ranking
from allspark_mmseg.methods.s4former.patch_attention import patch_adaptive_bias, unconfident_share
from allspark_mmseg.methods.s4former.patch_shuffle import PatchShuffle, shuffle, unshuffle
from allspark_mmseg.pseudo_label import PseudoLabel

from ..method_contract import CLASSES, MethodContract, batch, losses_in, tiny_head, tiny_segmentor

CROP = (64, 64)


def tiny_vit(**overrides) -> dict:
    """Config of a plain vision transformer of two layers with a SETR-PUP head, which has a batch norm."""
    backbone = dict(
        type='allspark_mmseg.VisionTransformer',
        img_size=64,
        patch_size=8,
        patch_bias=True,
        embed_dims=16,
        num_layers=2,
        num_heads=2,
        mlp_ratio=2,
        out_indices=(0, 1),
        interpolate_mode='bilinear',
    )
    head = dict(
        type='SETRUPHead',
        in_channels=16,
        in_index=1,
        channels=8,
        num_classes=CLASSES,
        num_convs=1,
        up_scale=8,
        kernel_size=3,
        dropout_ratio=0,
        norm_cfg=dict(type='BN'),
        norm_layer=dict(type='LN', eps=1e-6),
        init_cfg=None,
    )
    return tiny_segmentor(backbone=backbone, decode_head=head) | overrides


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

    def test_the_branches(self, monkeypatch):
        """What each pass sees, and what its loss is made of, by the formulas."""
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
        losses = [model.unsupervised_loss(of_student, pseudo) for pseudo in (whole, half)]
        torch.testing.assert_close(losses[1], losses[0] / 2)

    def test_a_confidence_equal_to_the_threshold_does_not_count(self):
        model = self.build()
        model.teacher.module.decode_head.forward = lambda features: torch.zeros(2, CLASSES, 64, 64)
        pseudo = model.make_pseudo_labels(torch.randn(2, 3, *CROP), 1 / CLASSES)
        assert (pseudo.confidence == 1 / CLASSES).all() and not pseudo.valid.any()

    def test_without_its_branches_it_is_mean_teacher(self):
        options = dict(attention_weight=0, ranking_weight=0, perturbed_weight=1)
        model = self.build(cutmix=dict(prob=0), shuffle=dict(block_size=32, prob=0), **options)
        inputs, data_samples = self.batch()
        losses = model.loss(inputs, data_samples)
        logits = model.resize_to_input(model.decode_head(model.extract_feat(inputs['strong_1'])), CROP)
        pseudo = model.make_pseudo_labels(inputs['weak'], 0.3, model.padding_mask(data_samples, 'weak'))
        expected = nn.functional.cross_entropy(logits, pseudo.target, ignore_index=255, reduction='sum')
        torch.testing.assert_close(losses_in(losses, 'unsup.'), expected / pseudo.target.numel())

    def test_teacher_is_the_released_one(self):
        teacher = self.build().teacher
        assert (teacher.momentum, teacher.warm_up) == (0.001, False)
        assert self.build(teacher=dict(momentum=0.01)).teacher.warm_up

    def test_what_it_cannot_train_is_refused_when_built(self):
        with pytest.raises(ValueError, match=r'backbone is a MixVisionTransformer.*attention_weight=0'):
            super().build(tiny_segmentor())
        with pytest.raises(ValueError, match=r'block_size is 20 pixels, expected a multiple of .* 8'):
            self.build(shuffle=dict(block_size=20))
        with pytest.raises(ValueError, match="average_over is 'none'"):
            self.build(average_over='none')

    def test_crops_that_blocks_cannot_tile_are_refused_before_training(self):
        model = self.build()
        with pytest.raises(
            ValueError, match=r'block_size=32 pixels cannot tile the crop of 64 x 72 \(H x W\)'
        ):
            model.check_input_size(torch.zeros(1, 3, 64, 72))
        model.check_input_size(torch.zeros(1, 3, 64, 96))

    def test_a_hierarchy_of_features_is_put_back_level_by_level(self):
        torch.manual_seed(0)
        options = dict(shuffle=dict(block_size=32, prob=1.0), cutmix=dict(prob=0))
        model = self.build(tiny_segmentor(decode_head=tiny_head()), **options)
        assert torch.isfinite(losses_in(model.loss(*self.batch()), 'unsup.'))
        fine = self.build(tiny_segmentor(decode_head=tiny_head()), shuffle=dict(block_size=16))
        with pytest.raises(ValueError, match=r'\(2, 2\) cannot be put back in blocks of a \(4, 4\) grid'):
            fine.loss(*self.batch())


def naive_ranking(student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The formula, pixel by pixel, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for image, row, column in (target != 255).nonzero().tolist():
        own = int(target[image, row, column])
        others = [c for c in range(student.shape[1]) if c != own]
        s, t = (each.double()[image, others, row, column].softmax(0) for each in (student, teacher))
        total += (s - t + 1e-6).square().sum().sqrt()
    return (total / target.numel()).to(student.dtype)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.floats(0.1, 30), st.integers(0, 99))
def test_ranking_is_the_formula(classes, scale, seed):
    torch.manual_seed(seed)
    student, teacher = (scale * torch.randn(2, classes, 3, 4, dtype=torch.float64) for _ in range(2))
    target = torch.randint(classes, (2, 3, 4))
    target[torch.rand(2, 3, 4) < 0.3] = 255
    loss = negative_class_ranking(student, teacher, target)
    torch.testing.assert_close(loss, naive_ranking(student, teacher, target), rtol=1e-10, atol=1e-15)


def test_ranking_leaves_the_pseudo_class_and_the_teacher_without_gradient():
    student, teacher = (torch.randn(1, 5, 4, 4).requires_grad_() for _ in range(2))
    target = torch.randint(5, (1, 4, 4))
    negative_class_ranking(student, teacher, target).backward()
    own = torch.zeros_like(student, dtype=torch.bool).scatter_(1, target[:, None], True)
    assert (student.grad[own] == 0).all() and (student.grad[~own] != 0).all()
    assert teacher.grad is None


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 99),
)
def test_shuffling_moves_whole_blocks_and_unshuffling_is_its_inverse(grid, cells, seed):
    torch.manual_seed(seed)
    images = torch.rand(3, 2, grid[0] * cells[0], grid[1] * cells[1])
    permutation = PatchShuffle(prob=0.7).draw(3, grid)
    shuffled = shuffle(images, permutation, grid)
    for image in range(3):
        for place, source in enumerate(permutation[image].tolist()):

            def block(of: torch.Tensor, index: int, image=image) -> torch.Tensor:
                row, column = divmod(index, grid[1])
                rows = slice(row * cells[0], (row + 1) * cells[0])
                return of[image, :, rows, column * cells[1] : (column + 1) * cells[1]]

            assert torch.equal(block(shuffled, place), block(images, source))
    assert torch.equal(unshuffle(shuffled, permutation, grid), images)


def test_permutations_are_uniform_and_come_to_a_share_of_the_images():
    drawn = PatchShuffle(prob=0.25).draw(24000, (1, 3))
    identity = (drawn == torch.arange(3)).all(1).float().mean()
    assert identity == pytest.approx(0.75 + 0.25 / 6, abs=0.012)
    others = drawn[(drawn != torch.arange(3)).any(1)]
    counts = torch.stack([(others == other).all(1).sum() for other in others.unique(dim=0)]).float()
    assert len(counts) == 5
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 4 + 4 * math.sqrt(8)
    assert torch.equal(PatchShuffle(prob=0).draw(50, (2, 2)), torch.arange(4).expand(50, 4))


@pytest.mark.parametrize(
    'arguments, told',
    [
        (dict(block_size=0), 'block_size is 0'),
        (dict(block_size=16.0), r'block_size is 16\.0'),
        (dict(prob=1.5), r'prob is 1\.5'),
    ],
)
def test_a_shuffle_that_cannot_be_is_refused(arguments, told):
    with pytest.raises(ValueError, match=f'PatchShuffle: {told}, expected'):
        PatchShuffle(**arguments)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 4), st.integers(1, 5)), st.floats(0, 50), st.integers(0, 99))
def test_the_bias_is_the_formula_also_where_images_are_oblong(grid, strength, seed):
    torch.manual_seed(seed)
    confident = torch.rand(2, 4 * grid[0], 4 * grid[1]) < torch.rand(2, 1, 1)
    unconfident = unconfident_share(confident, 4)
    patches = grid[0] * grid[1]
    bias = patch_adaptive_bias(unconfident, strength)
    assert bias.shape == (2, 1, 1 + patches, 1 + patches)
    for image in range(2):
        share = [
            1 - confident[image, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].double().mean().item()
            for i in range(grid[0])
            for j in range(grid[1])
        ]
        free = sorted(range(patches), key=lambda i: (round(share[i], 9), i))[: patches // 2]
        for query in range(1 + patches):
            row = [0.0] + [strength * s for s in share]
            expected = torch.tensor(row if query - 1 not in free else [0.0] * len(row))
            torch.testing.assert_close(bias[image, 0, query], expected, rtol=1e-5, atol=1e-6)


def test_one_forward_of_the_network_a_pass(monkeypatch):
    """The release runs the ranking in the attention branch, too, and throws it away."""
    called = []
    original = segmentor_module.negative_class_ranking
    monkeypatch.setattr(
        segmentor_module, 'negative_class_ranking', lambda *args: called.append(1) or original(*args)
    )
    test = TestS4Former()
    model = test.build()
    passes = []
    model.student.backbone.register_forward_hook(lambda *_: passes.append(1))
    model.loss(*test.batch())
    assert len(passes) == 3 and len(called) == 1
