"""AllSpark against vectors that its reference implementation made."""

import json
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from allspark_mmseg.converters.allspark import allspark_to_mmseg, bottleneck_to_mmseg
from allspark_mmseg.methods import AllSparkBottleneck, SemanticMemory
from allspark_mmseg.pseudo_label import masked_cross_entropy

from ..conftest import GOLDEN, assert_close_to_largest, under


def load_official(module: torch.nn.Module, state: dict) -> None:
    """Load a converted official state; only the count of written rows has no official counterpart."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith('memory.written') for key in missing), missing


def test_semantic_memory(golden):
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
    init = under(vectors, 'init.')
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
    load_official(bottleneck, bottleneck_to_mmseg(init))
    return bottleneck


@pytest.mark.parametrize('phase', ['warmup', 'memory'])
def test_bottleneck_training(bottleneck_vectors, phase):
    expected = under(bottleneck_vectors, f'{phase}.')
    bottleneck = build_bottleneck(bottleneck_vectors).train()
    x = bottleneck_vectors['x'].clone().requires_grad_()
    pseudo_logits = bottleneck_vectors['pseudo_logits']
    y = bottleneck.forward_semi(x, len(x) - len(pseudo_logits), pseudo_logits, read_memory=phase == 'memory')
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()

    assert_close_to_largest(y, expected['y'], 1e-5, 'y')
    assert_close_to_largest(x.grad, expected['grad_x'], 1e-5, 'grad_x')
    gradients = {name: parameter.grad for name, parameter in bottleneck.named_parameters()}
    official = bottleneck_to_mmseg(under(expected, 'grad.'))
    assert set(official) == set(gradients)
    for name, gradient in official.items():
        assert_close_to_largest(gradients[name], gradient, 1e-5, name)
    assert_close_to_largest(bottleneck.memory.rows, expected['kv_queue'], 1e-5, 'memory')
    assert torch.equal(bottleneck.memory.pointer, expected['queue_ptr'])


@torch.no_grad()
def test_bottleneck_evaluation(bottleneck_vectors):
    bottleneck = build_bottleneck(bottleneck_vectors).eval()
    x = bottleneck_vectors['x'][:2]
    assert_close_to_largest(bottleneck(x), bottleneck_vectors['eval.batch2'], 1e-5, 'whole batch as keys')
    alone = bottleneck(x, per_image=True)[:1]
    assert_close_to_largest(alone, bottleneck_vectors['eval.single0'], 1e-5, 'own channels as keys')


def official_network(state: dict, *, crop: int, drop: float = 0.0) -> dict:
    """Config of the network that an official state dict belongs to, its sizes read from the state."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    depths = [
        len({k.split('.')[2] for k in state if k.startswith(f'backbone.block{s}.')}) for s in (1, 2, 3, 4)
    ]
    widths = [shapes[f'backbone.patch_embed{s}.proj.weight'][0] for s in (1, 2, 3, 4)]
    decoder = dict(
        type='allspark_mmseg.AllMLPHead',
        in_channels=widths,
        channels=shapes['decoder.decoder.linear_c4.proj.weight'][0],
        num_classes=shapes['decoder.decoder.linear_pred.weight'][0],
        norm_cfg=dict(type='BN'),
        dropout_ratio=drop,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
    head = decoder
    if 'decoder.allspark.attn.q_u.weight' in state:
        wide, width = shapes['decoder.allspark.attn.q_u.weight']
        head = dict(
            type='allspark_mmseg.AllSparkHead',
            decoder=decoder,
            bottleneck=dict(in_channels=widths[-1], num_heads=wide // width, crop_size=crop, dropout=drop),
        )
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=dict(
            type='allspark_mmseg.MixVisionTransformer',
            embed_dims=widths[0],
            num_layers=depths,
            num_heads=[width // widths[0] for width in widths],
        ),
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )


def train_four_steps(model, vectors):
    """Yield what the reference recorded of each step, from ours: (t, losses, pseudo-label)."""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups['backbone' in name].append(parameter)
    optimizer = torch.optim.SGD(
        [dict(params=groups[True], lr=0.002), dict(params=groups[False], lr=0.02)],
        momentum=0.9,
        weight_decay=1e-4,
    )
    for t in range(4):
        model.memory_ready.fill_(t >= 2)
        inputs = dict(labeled=vectors[f'{t}.labeled'], weak=vectors[f'{t}.unlabeled'])
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=mask[None].long())) for mask in vectors[f'{t}.mask']
        ]
        pseudo = []
        original = model.label
        model.label = lambda *args, original=original, pseudo=pseudo: (
            pseudo.append(original(*args)) or pseudo[0]
        )
        losses = model.loss(inputs, dict(labeled=samples))
        model.label = original
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
        yield t, losses, pseudo[0]


def test_training_steps(golden):
    vectors = golden('allspark_train')
    init = under(vectors, 'init.')
    crop = vectors['0.labeled'].shape[-1]
    model = MODELS.build(
        dict(type='allspark_mmseg.AllSpark', segmentor=official_network(init, crop=crop))
    ).train()
    load_official(model.student, allspark_to_mmseg(init))

    for t, losses, pseudo in train_four_steps(model, vectors):
        agreement = (pseudo.label == vectors[f'{t}.pseudo'].long()).float().mean()
        assert agreement >= 0.999, t
        supervised, unsupervised = losses['sup.decode.loss_ce'], losses['unsup.loss_ce']
        torch.testing.assert_close(2 * supervised, vectors[f'{t}.loss_x'], rtol=1e-5, atol=0)
        torch.testing.assert_close(2 * unsupervised, vectors[f'{t}.loss_u'], rtol=1e-5, atol=0)
        torch.testing.assert_close(supervised + unsupervised, vectors[f'{t}.loss'], rtol=1e-5, atol=0)

    final = allspark_to_mmseg(under(vectors, 'final.'))
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


def test_layer_norm_epsilons_decide_faint_activations(golden):
    vectors = golden('allspark_train')
    state = {
        key: value * 0.003 if ('patch_embed' in key and '.proj.' in key) or '.sr.' in key else value
        for key, value in under(vectors, 'final.').items()
    }
    model = MODELS.build(official_network(state, crop=vectors['0.labeled'].shape[-1])).eval()
    load_official(model, allspark_to_mmseg(state))
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
def test_network_of_real_size(golden, name, crop, monkeypatch):
    vectors = golden(f'{name}_forward')
    monkeypatch.syspath_prepend(str(GOLDEN))
    from rule_state import rule_state, rule_tensor

    spec = {key: json.loads(shape) for key, shape in zip(vectors['keys'], vectors['shapes'], strict=True)}
    state = {key: torch.from_numpy(value) for key, value in rule_state(spec).items()}
    model = MODELS.build(official_network(state, crop=crop)).eval()
    load_official(model, allspark_to_mmseg(state))

    size = tuple(vectors['image_size'].tolist())
    image = torch.from_numpy(rule_tensor('image', (1, 3, *size)))
    with torch.no_grad():
        logits = F.interpolate(model(image), size, mode='bilinear')
    torch.testing.assert_close(logits[:, :, ::4, ::4], vectors['logits_every_4th'], rtol=0, atol=2e-5)
    torch.testing.assert_close(logits.mean((2, 3)), vectors['logits_mean'], rtol=0, atol=2e-5)
    torch.testing.assert_close(logits.std((2, 3)), vectors['logits_std'], rtol=0, atol=2e-5)
    assert (logits.argmax(1) == vectors['argmax'].long()).float().mean() > 0.999
    assert 'rule_state' in sys.modules


def test_masked_cross_entropy_ignores_255_and_survives_an_empty_target():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.tensor([[[0, 1], [255, 255]]])
    expected = -torch.stack([logits.log_softmax(1)[0, 0, 0, 0], logits.log_softmax(1)[0, 1, 0, 1]]).mean()
    torch.testing.assert_close(masked_cross_entropy(logits, target), expected)
    empty = masked_cross_entropy(logits, torch.full_like(target, 255))
    empty.backward()
    assert empty == 0 and torch.equal(logits.grad, torch.zeros_like(logits))
