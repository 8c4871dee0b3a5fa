"""AllSpark against vectors that its reference implementation made."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from allspark_mmseg.converters.allspark import allspark_to_mmseg, bottleneck_to_mmseg
from allspark_mmseg.methods import AllSparkBottleneck, SemanticMemory
from allspark_mmseg.pseudo_label import masked_cross_entropy

from ..helpers.allspark_reference import load_reference_state, reference_network, train_four_steps
from ..helpers.golden import assert_close_to_largest, recorded_network, strip_prefix


def test_semantic_memory_matches_the_reference(golden):
    vectors = golden('semantic_memory')
    memory = SemanticMemory(*vectors['start.kv_queue'].shape)
    memory.rows.copy_(vectors['start.kv_queue'])
    memory.pointer.copy_(vectors['start.queue_ptr'])
    steps = sum(key.endswith('.emb') for key in vectors)
    for t in range(steps):
        memory.update(vectors[f'{t}.emb'][None], vectors[f'{t}.cls'][None])
        assert torch.equal(memory.rows, vectors[f'{t}.kv_queue']), t
        assert torch.equal(memory.pointer, vectors[f'{t}.queue_ptr']), t
    assert steps > 0


@pytest.fixture(params=['allspark_bottleneck', 'allspark_bottleneck_narrow'])
def bottleneck_vectors(request, golden):
    return golden(request.param)


def build_bottleneck(vectors: dict) -> AllSparkBottleneck:
    init = strip_prefix(vectors, 'init.')
    num_classes, channels, _ = init['attn.kv_queue'].shape
    size = vectors['x'].shape[2:]
    bottleneck = AllSparkBottleneck(
        vectors['x'].shape[1],
        num_classes,
        crop_size=(32 * size[0], 32 * size[1]),
        channels=channels,
        num_heads=init['attn.q_u.weight'].shape[0] // channels,
        dropout=0.0,
    )
    load_reference_state(bottleneck, bottleneck_to_mmseg(init))
    return bottleneck


@pytest.mark.parametrize('phase', ['warmup', 'memory'])
def test_bottleneck_outputs_and_gradients_match_the_reference(bottleneck_vectors, phase):
    expected = strip_prefix(bottleneck_vectors, f'{phase}.')
    bottleneck = build_bottleneck(bottleneck_vectors).train()
    x = bottleneck_vectors['x'].clone().requires_grad_()
    pseudo_logits = bottleneck_vectors['pseudo_logits']
    y = bottleneck.forward_semi(x, len(x) - len(pseudo_logits), pseudo_logits, read_memory=phase == 'memory')
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()

    assert_close_to_largest(y, expected['y'], 1e-5, 'y')
    assert_close_to_largest(x.grad, expected['grad_x'], 1e-5, 'grad_x')
    gradients = {name: parameter.grad for name, parameter in bottleneck.named_parameters()}
    official = bottleneck_to_mmseg(strip_prefix(expected, 'grad.'))
    assert set(official) == set(gradients)
    for name, gradient in official.items():
        assert_close_to_largest(gradients[name], gradient, 1e-5, name)
    assert_close_to_largest(bottleneck.memory.rows, expected['kv_queue'], 1e-5, 'memory')
    assert torch.equal(bottleneck.memory.pointer, expected['queue_ptr'])


@torch.no_grad()
def test_bottleneck_predictions_match_the_reference(bottleneck_vectors):
    bottleneck = build_bottleneck(bottleneck_vectors).eval()
    x = bottleneck_vectors['x'][:2]
    assert_close_to_largest(bottleneck(x), bottleneck_vectors['eval.batch2'], 1e-5, 'whole batch as keys')
    alone = bottleneck(x, per_image=True)[:1]
    assert_close_to_largest(alone, bottleneck_vectors['eval.single0'], 1e-5, 'own channels as keys')


def test_four_training_steps_match_the_reference(golden):
    vectors = golden('allspark_train')
    init = strip_prefix(vectors, 'init.')
    crop = vectors['0.labeled'].shape[-1]
    model = MODELS.build(
        dict(type='allspark_mmseg.AllSpark', segmentor=reference_network(init, crop=crop))
    ).train()
    load_reference_state(model.student, allspark_to_mmseg(init))

    for t, losses, pseudo in train_four_steps(model, vectors):
        agreement = (pseudo.label == vectors[f'{t}.pseudo'].long()).float().mean()
        assert agreement >= 0.999, t
        supervised, unsupervised = losses['sup.decode.loss_ce'], losses['unsup.loss_ce']
        torch.testing.assert_close(2 * supervised, vectors[f'{t}.loss_x'], rtol=1e-5, atol=0)
        torch.testing.assert_close(2 * unsupervised, vectors[f'{t}.loss_u'], rtol=1e-5, atol=0)
        torch.testing.assert_close(supervised + unsupervised, vectors[f'{t}.loss'], rtol=1e-5, atol=0)

    final = allspark_to_mmseg(strip_prefix(vectors, 'final.'))
    state = model.student.state_dict()
    for name, value in final.items():
        torch.testing.assert_close(
            state[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f'{n}: {m}'
        )

    model.eval()
    image = vectors['eval.image']
    metas = [dict(img_shape=image.shape[2:], ori_shape=image.shape[2:])]
    with torch.no_grad():
        assert_close_to_largest(
            model.encode_decode(image, metas), vectors['eval.logits'], 1e-4, 'eval.logits'
        )


def test_faint_activations_match_the_reference(golden):
    vectors = golden('allspark_train')
    state = {
        key: value * 0.003 if ('patch_embed' in key and '.proj.' in key) or '.sr.' in key else value
        for key, value in strip_prefix(vectors, 'final.').items()
    }
    model = MODELS.build(reference_network(state, crop=vectors['0.labeled'].shape[-1])).eval()
    load_reference_state(model, allspark_to_mmseg(state))
    image = vectors['eval.image']
    with torch.no_grad():
        logits = F.interpolate(model(image), image.shape[2:], mode='bilinear')
    assert_close_to_largest(logits, vectors['faint.logits'], 1e-4)


@pytest.mark.parametrize(
    'name, crop',
    [
        ('allspark_pascal_mit_b2', 513),
        ('allspark_cityscapes_mit_b3', 801),
        ('allspark_pascal_mit_b5', 513),
        ('baseline_pascal_mit_b4', 513),
    ],
)
def test_networks_of_published_size_match_the_reference(golden, name, crop):
    vectors = golden(f'{name}_forward')
    state, image = recorded_network(vectors)
    model = MODELS.build(reference_network(state, crop=crop)).eval()
    load_reference_state(model, allspark_to_mmseg(state))
    with torch.no_grad():
        logits = F.interpolate(model(image), image.shape[2:], mode='bilinear')
    torch.testing.assert_close(logits[:, :, ::4, ::4], vectors['logits_every_4th'], rtol=0, atol=2e-5)
    torch.testing.assert_close(logits.mean((2, 3)), vectors['logits_mean'], rtol=0, atol=2e-5)
    torch.testing.assert_close(logits.std((2, 3)), vectors['logits_std'], rtol=0, atol=2e-5)
    assert (logits.argmax(1) == vectors['argmax'].long()).float().mean() > 0.999


def test_masked_cross_entropy_ignores_255_and_survives_an_empty_target():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.tensor([[[0, 1], [255, 255]]])
    expected = -torch.stack([logits.log_softmax(1)[0, 0, 0, 0], logits.log_softmax(1)[0, 1, 0, 1]]).mean()
    torch.testing.assert_close(masked_cross_entropy(logits, target), expected)
    empty = masked_cross_entropy(logits, torch.full_like(target, 255))
    empty.backward()
    assert empty == 0 and torch.equal(logits.grad, torch.zeros_like(logits))
