"""The parts of S4Former against vectors of its release: components, features, predictions."""

import pytest
import torch
from mmseg.models.backbones.vit import VisionTransformer as MMSegVisionTransformer
from mmseg.structures import SegDataSample

from allspark_mmseg.methods.s4former.class_ranking import negative_class_ranking
from allspark_mmseg.methods.s4former.patch_attention import patch_adaptive_bias
from allspark_mmseg.methods.s4former.patch_shuffle import shuffle, unshuffle
from allspark_mmseg.pseudo_label import PseudoLabel, masked_cross_entropy
from allspark_mmseg.teacher import Teacher

from ..helpers.golden import assert_close_to_largest, strip_prefix
from ..helpers.s4former_golden import FLOAT64, doubled, network


@pytest.mark.parametrize('case', ['a', 'b'])
def test_shuffle_and_unshuffle_match_the_release(golden, case):
    vectors = strip_prefix(golden('s4former'), f'shuffle.{case}.')
    permutation = vectors['perm'].long()
    image = vectors['image']
    grid = tuple(side // int(vectors['block_px']) for side in image.shape[2:])
    assert torch.equal(shuffle(image, permutation, grid), vectors['shuffled'])
    assert torch.equal(unshuffle(vectors['shuffled'], permutation, grid), image)
    levels = [''] + [f'stage{stage}.' for stage in range(4) if f'stage{stage}.feature' in vectors]
    assert case == 'b' or len(levels) == 5
    for level in levels:
        restored = unshuffle(vectors[f'{level}feature'], permutation, grid)
        assert torch.equal(restored, vectors[f'{level}restored'])


def test_wide_images_lose_blocks_in_the_release_and_none_here(golden):
    vectors = strip_prefix(golden('s4former'), 'as_released.shuffle_wide.')
    image, block = vectors['image'], int(vectors['block_px'])
    permutation = vectors['perm'].long()
    grid = (image.shape[2] // block, image.shape[3] // block)
    shuffled = shuffle(image, permutation, grid)
    assert torch.equal(shuffled.flatten(1).sort().values, image.flatten(1).sort().values)
    assert not torch.equal(vectors['shuffled'].flatten(1).sort().values, image.flatten(1).sort().values)
    assert torch.equal(unshuffle(shuffled, permutation, grid), image)


def test_confident_pixels_exceed_the_threshold(golden):
    vectors = doubled(golden('s4former'))
    pseudo = PseudoLabel.from_logits(vectors['pseudo.logits'])
    assert torch.equal(pseudo.label, vectors['pseudo.argmax'].long())
    for percent in (95, 50, 20):
        expected = vectors[f'pseudo.mask_{percent}'].bool()
        assert torch.equal(pseudo.confidence > percent / 100, expected)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, FLOAT64), (torch.float32, 2e-5)])
@pytest.mark.parametrize(
    'case',
    [
        'main',
        'own_argmax',
        'no_pixel',
        'one_class',
        'equal',
        'saturated',
        'teacher_flat',
        'two_classes',
        'voc',
    ],
)
def test_negative_class_ranking_matches_the_release(golden, case, dtype, tolerance):
    vectors = golden('s4former')
    source = 'voc' if case == 'voc' else 'main'
    student, teacher = (vectors[f'ncr.{source}.{who}'].to(dtype) for who in ('student', 'teacher'))
    if case == 'equal':
        teacher = student
    if case == 'saturated':
        student, teacher = 32 * student, 32 * teacher
    if case == 'teacher_flat':
        teacher = torch.zeros_like(teacher)
    if case == 'two_classes':
        student, teacher = student[:, :2], teacher[:, :2]
    student = student.clone().requires_grad_()
    target = vectors[f'ncr.{case}.label'].long()
    loss = negative_class_ranking(student, teacher, target)
    loss.backward()
    expected = vectors[f'ncr.{case}.loss'].to(dtype)
    torch.testing.assert_close(loss.detach(), expected, rtol=tolerance, atol=0)
    if case in ('equal', 'two_classes', 'no_pixel'):  # no gradient but for rounding
        assert student.grad.abs().max() <= {torch.float64: 1e-15, torch.float32: 1e-6}[dtype]
    else:
        grad = vectors[f'ncr.{case}.grad'].to(dtype)
        assert_close_to_largest(student.grad, grad, 2e-4 if dtype == torch.float32 else tolerance)


@pytest.mark.parametrize('case', ['main', 'no_pixel', 'voc'])
def test_the_loss_on_pseudo_labels_is_averaged_over_all_pixels(golden, case):
    vectors = doubled(golden('s4former'))
    student = vectors[f'ncr.{"voc" if case == "voc" else "main"}.student'].clone().requires_grad_()
    target = vectors[f'ncr.{case}.label'].long()
    loss = masked_cross_entropy(student, target, torch.ones_like(target, dtype=torch.bool))
    loss.backward()
    torch.testing.assert_close(
        loss.detach(), vectors[f'unsup_ce.{case}.loss'].double(), rtol=FLOAT64, atol=1e-12
    )
    assert_close_to_largest(student.grad, vectors[f'unsup_ce.{case}.grad'].double(), FLOAT64)
    if case != 'voc':
        share = (target != 255).double().mean()
        torch.testing.assert_close(share, vectors[f'unsup_ce.{case}.mask_ratio'].double(), rtol=1e-6, atol=0)


def test_the_teacher_matches_the_release(golden):
    vectors = golden('s4former')

    def network(who: str) -> torch.nn.Module:
        made = torch.nn.ModuleDict(
            dict(fc=torch.nn.Linear(3, 2), bn=torch.nn.BatchNorm1d(2), norm=torch.nn.BatchNorm1d(2))
        ).double()
        made.load_state_dict(strip_prefix(vectors, f'ema.{who}.'))
        return made

    student = network('student')
    # the release averages buffers with bn in their name, and leaves all others and all counters
    teacher = Teacher(student, momentum=0.001, warm_up=False, buffers={'norm': 'leave', 'tracked': 'leave'})
    teacher.module.load_state_dict(network('teacher').state_dict())
    for _ in range(3):
        teacher.update_parameters(student)
    found = teacher.module.state_dict()
    expected = strip_prefix(vectors, 'ema.after3.') | strip_prefix(vectors, 'as_released.ema.after3.')
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key].double(), value.double(), rtol=1e-12, atol=0)


def test_the_bias_matches_the_release(golden):
    vectors = doubled(golden('s4former'))
    for case in ('pasa', 'pasa.odd', 'pasa.all_confident'):
        unconfident, recorded = vectors[f'{case}.unconfident'], vectors[f'{case}.bias']
        bias = patch_adaptive_bias(unconfident, float(vectors['pasa.lambda']))
        heads = len(recorded) // len(bias)
        repeated = bias.expand(-1, heads, -1, -1).flatten(0, 1)
        torch.testing.assert_close(repeated, recorded, rtol=FLOAT64, atol=0)
    # ties are broken arbitrarily in the release: as many rows are free, and keys count alike
    unconfident, recorded = (vectors[f'as_released.pasa_ties.{key}'] for key in ('unconfident', 'bias'))
    bias = patch_adaptive_bias(unconfident, float(vectors['pasa.lambda']))
    recorded = recorded.unflatten(0, (len(bias), -1))[:, :1]
    for actual, expected in zip(bias, recorded, strict=True):
        assert (actual != 0).any(-1).sum() == (expected != 0).any(-1).sum()
        torch.testing.assert_close(actual.amax(-2), expected.amax(-2))


@torch.no_grad()
def test_biased_features_match_the_release(golden):
    vectors = doubled(golden('s4former'))
    backbone = network(vectors).student.backbone
    bias = patch_adaptive_bias(vectors['pasa.unconfident'], float(vectors['pasa.lambda']))
    features = backbone(vectors['pasa.image'], attention_bias=bias)
    for level in (0, 3):
        assert_close_to_largest(features[level], vectors[f'pasa.feature{level}'], FLOAT64)
    assert_close_to_largest(
        backbone(vectors['pasa.image'])[3], vectors['pasa.feature3_without_bias'], FLOAT64
    )


@torch.no_grad()
def test_predictions_match_the_release(golden):
    vectors = doubled(golden('s4former'))
    model = network(vectors).eval()
    image = vectors['infer.image']
    for level, feature in enumerate(model.extract_feat(image)):
        assert_close_to_largest(feature, vectors[f'infer.feature{level}'], FLOAT64)
    size = tuple(vectors['infer.original_size'].tolist())
    meta = dict(ori_shape=size, img_shape=tuple(image.shape[2:]), pad_shape=tuple(image.shape[2:]))
    logits = model.encode_decode(image, [meta])
    assert_close_to_largest(logits[..., ::4, ::4], vectors['infer.logits_every_4th'], FLOAT64)
    (sample,) = model.predict(image, [SegDataSample(metainfo=meta)])
    assert_close_to_largest(
        sample.seg_logits.data[:, ::10, ::10], vectors['infer.logits_original_every_10th'][0], FLOAT64
    )
    assert torch.equal(sample.pred_sem_seg.data[0], vectors['infer.pred'].long())


def test_resized_position_embeddings_match_the_release(golden):
    vectors = doubled(golden('s4former'))
    grids = (tuple(vectors[f'pos_embed.grid_{end}'].tolist()) for end in ('out', 'in'))
    found = MMSegVisionTransformer.resize_pos_embed(vectors['pos_embed.in'], *grids, 'bilinear')
    torch.testing.assert_close(found, vectors['pos_embed.out'], rtol=FLOAT64, atol=FLOAT64)
