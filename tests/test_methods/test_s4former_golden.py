"""S4Former against vectors of its release: components, whole training steps, inference."""

import json

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.backbones.vit import VisionTransformer as MMSegVisionTransformer
from mmseg.structures import SegDataSample

from allspark_mmseg.methods.s4former.class_ranking import negative_class_ranking
from allspark_mmseg.methods.s4former.patch_attention import patch_adaptive_bias, unconfident_share
from allspark_mmseg.methods.s4former.patch_shuffle import shuffle, unshuffle
from allspark_mmseg.pseudo_label import PseudoLabel, masked_cross_entropy
from allspark_mmseg.teacher import Teacher

from ..conftest import assert_close_to_largest, under
from ..method_contract import build_model

FLOAT64 = 1e-10  # of the largest entry
MMSEG = 1e-8  # MMSegmentation's cross-entropy has an epsilon in its denominator


def doubled(vectors: dict) -> dict:
    """The vectors in float64 and int64, as their page asks."""
    return {
        key: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in vectors.items()
    }


def boxes_of(corners: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    boxes = torch.zeros(len(corners), *size, dtype=torch.bool)
    for box, (left, top, right, bottom) in zip(boxes, corners.tolist(), strict=True):
        box[top:bottom, left:right] = True
    return boxes


@pytest.mark.parametrize('case', ['a', 'b'])
def test_patches_are_shuffled_and_put_back_as_released(golden, case):
    vectors = under(golden('s4former'), f'shuffle.{case}.')
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
    vectors = under(golden('s4former'), 'as_released.shuffle_wide.')
    image, block = vectors['image'], int(vectors['block_px'])
    permutation = vectors['perm'].long()
    grid = (image.shape[2] // block, image.shape[3] // block)
    shuffled = shuffle(image, permutation, grid)
    assert torch.equal(shuffled.flatten(1).sort().values, image.flatten(1).sort().values)
    assert not torch.equal(vectors['shuffled'].flatten(1).sort().values, image.flatten(1).sort().values)
    assert torch.equal(unshuffle(shuffled, permutation, grid), image)


def test_confident_pixels_are_those_above_the_threshold(golden):
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
def test_negative_class_ranking_is_the_released_one(golden, case, dtype, tolerance):
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


def test_the_teacher_follows_as_released(golden):
    vectors = golden('s4former')

    def network(who: str) -> torch.nn.Module:
        made = torch.nn.ModuleDict(
            dict(fc=torch.nn.Linear(3, 2), bn=torch.nn.BatchNorm1d(2), norm=torch.nn.BatchNorm1d(2))
        ).double()
        made.load_state_dict(under(vectors, f'ema.{who}.'))
        return made

    student = network('student')
    # the release averages buffers with bn in their name, and leaves all others and all counters
    teacher = Teacher(student, momentum=0.001, warm_up=False, buffers={'norm': 'leave', 'tracked': 'leave'})
    teacher.module.load_state_dict(network('teacher').state_dict())
    for _ in range(3):
        teacher.update_parameters(student)
    found = teacher.module.state_dict()
    expected = under(vectors, 'ema.after3.') | under(vectors, 'as_released.ema.after3.')
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key].double(), value.double(), rtol=1e-12, atol=0)


def network(vectors: dict, **arguments) -> torch.nn.Module:
    """The recorded network: sizes off its keys and shapes, weights loaded by name; student and teacher."""
    shapes = dict(zip(vectors['net.keys'].tolist(), map(json.loads, vectors['net.shapes']), strict=True))
    state, start = {}, 0
    for key, shape in shapes.items():
        size = torch.Size(shape).numel()
        state[key] = vectors['net.values'][start : start + size].reshape(shape).double()
        start += size
    assert start == len(vectors['net.values'])
    dims, _, patch, _ = shapes['backbone.patch_embed.projection.weight']
    classes, channels, *_ = shapes['decode_head.conv_seg.weight']
    positions = shapes['backbone.pos_embed'][1] - 1
    layers = 1 + max(int(key.split('.')[2]) for key in shapes if key.startswith('backbone.layers.'))
    aux = 1 + max(int(key.split('.')[1]) for key in shapes if key.startswith('auxiliary_head.'))
    weights = dict(zip(vectors['config.names'].tolist(), vectors['config.ours'].tolist(), strict=True))
    auxiliary = dict(type='CrossEntropyLoss', loss_weight=weights['aux_weight'])
    head = dict(
        type='SETRUPHead',
        in_channels=dims,
        channels=channels,
        num_classes=classes,
        dropout_ratio=0,
        norm_layer=dict(type='LN', eps=1e-6),
        norm_cfg=dict(type='BN'),
        num_convs=4,
        up_scale=2,
        kernel_size=3,
    )
    model = build_model(
        dict(
            type='allspark_mmseg.S4Former',
            segmentor=dict(
                type='EncoderDecoder',
                backbone=dict(
                    type='allspark_mmseg.VisionTransformer',
                    img_size=(int(positions**0.5) * patch,) * 2,
                    patch_size=patch,
                    patch_bias=True,
                    embed_dims=dims,
                    num_layers=layers,
                    num_heads=len(vectors['pasa.bias']) // len(vectors['pasa.image']),
                    mlp_ratio=shapes['backbone.layers.0.ffn.layers.0.0.weight'][0] // dims,
                    out_indices=tuple(range(layers)),
                    norm_cfg=dict(type='LN', eps=1e-6),
                    interpolate_mode='bilinear',
                ),
                decode_head=dict(head, in_index=layers - 1),
                auxiliary_head=[
                    dict(head, in_index=i, num_convs=2, up_scale=4, loss_decode=auxiliary) for i in range(aux)
                ],
                test_cfg=dict(mode='whole'),
            ),
            **arguments,
        )
    ).double()
    student = {key: value for key, value in state.items() if not key.startswith('decode_head_ema.')}
    model.student.load_state_dict(student, strict=True)
    model.teacher.module.load_state_dict(student)
    model.teacher.module.decode_head.load_state_dict(under(state, 'decode_head_ema.'))
    return model.train()


def test_the_bias_is_the_released_one(golden):
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
    for ours, theirs in zip(bias, recorded, strict=True):
        assert (ours != 0).any(-1).sum() == (theirs != 0).any(-1).sum()
        torch.testing.assert_close(ours.amax(-2), theirs.amax(-2))


@torch.no_grad()
def test_biased_features_are_the_released_ones(golden):
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
def test_inference_is_the_released_one(golden):
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


def test_position_embeddings_are_resized_as_released(golden):
    vectors = doubled(golden('s4former'))
    grids = (tuple(vectors[f'pos_embed.grid_{end}'].tolist()) for end in ('out', 'in'))
    found = MMSegVisionTransformer.resize_pos_embed(vectors['pos_embed.in'], *grids, 'bilinear')
    torch.testing.assert_close(found, vectors['pos_embed.out'], rtol=FLOAT64, atol=FLOAT64)


def masks(labels: torch.Tensor) -> list[SegDataSample]:
    return [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=label.shape[1:]))
        for label in labels.long()
    ]


LOSSES = {
    'decode.loss_ce': 'sup.decode.loss_ce',
    **{f'aux_{i}.loss_ce': f'sup.aux_{i}.loss_ce' for i in range(4)},
    'loss_seg_unsup_attn_mask': 'unsup.loss_attention',
    'loss_seg_unsup': 'unsup.loss_perturbed',
    'loss_ncr_unsup': 'unsup.loss_ranking',
}


def trained(vectors: dict, **arguments) -> torch.nn.Module:
    """The recorded network with the settings of the recorded steps."""
    patch = vectors['train.student_image'].shape[2] // vectors['train.0.unconfident'].shape[1]
    model = network(
        vectors,
        threshold=float(vectors['train.tau']),
        teacher=dict(momentum=1 - float(vectors['train.ema']), warm_up=False, buffers={'tracked': 'leave'}),
        shuffle=dict(block_size=patch * int(vectors['train.block_tokens'])),
        ignore_padding=False,
        **arguments,
    )
    model.pseudo = []
    label = model.label
    model.label = lambda *args: model.pseudo.append(label(*args)) or model.pseudo[-1]
    return model


def step(model: torch.nn.Module, vectors: dict, prefix: str, boxes: torch.Tensor | None) -> dict:
    """One recorded step: teacher first, then the losses, compared; returns them with gradients made."""
    model.teacher.update_parameters(model.student)
    permutation = vectors[f'{prefix}.perm'].long()
    model.shuffle.draw = lambda *_: permutation
    size = tuple(vectors['train.student_image'].shape[2:])
    none = torch.zeros(len(permutation), *size, dtype=torch.bool)
    model.cutmix.draw = lambda *_: none if boxes is None else boxes
    losses = model.loss(
        dict(
            labeled=vectors['train.sup_image'],
            weak=vectors['train.teacher_image'],
            strong_1=vectors['train.student_image'],
        ),
        dict(labeled=masks(vectors['train.sup_label'])),
    )
    pseudo = model.pseudo[-1]
    assert torch.equal(pseudo.valid, vectors[f'{prefix}.mask'].bool())
    assert torch.equal(pseudo.target, vectors[f'{prefix}.label'].long())
    patch = model.student.backbone.patch_size
    unconfident = unconfident_share(pseudo.valid, patch).double()
    torch.testing.assert_close(unconfident, vectors[f'{prefix}.unconfident'], rtol=1e-12, atol=0)
    model.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return losses


def compare_losses(losses: dict, vectors: dict, expected: torch.Tensor) -> None:
    for name, value in zip(vectors['train.loss_names'].tolist(), expected, strict=True):
        found = losses[LOSSES[name]].detach()
        torch.testing.assert_close(
            found, value, rtol=MMSEG, atol=0, msg=lambda told, name=name: f'{name}: {told}'
        )


def compare_gradients(model: torch.nn.Module, vectors: dict, prefix: str) -> None:
    parameters = dict(model.student.named_parameters())
    names = vectors['train.params'].tolist()
    assert names and set(names) == set(parameters)
    largest = vectors[f'{prefix}.grad_norm'].max()
    for name, norm, dot in zip(
        names, vectors[f'{prefix}.grad_norm'], vectors[f'{prefix}.grad_dot'], strict=True
    ):
        grad = parameters[name].grad.flatten()
        for found, value in ((grad.norm(), norm), (rated(grad), dot)):
            assert abs(found - value) <= MMSEG * largest, f'{name}: {found} instead of {value}'


def rated(values: torch.Tensor) -> torch.Tensor:
    values = values.detach().flatten().double()
    return (values * torch.arange(len(values), dtype=torch.float64).cos()).sum()


def test_three_training_steps_are_the_released_ones(golden):
    vectors = doubled(golden('s4former'))
    model = trained(vectors)
    lr, head_lr = float(vectors['train.lr']), float(vectors['train.head_lr'])
    groups = {True: [], False: []}
    for name, parameter in model.student.named_parameters():
        groups['head' in name].append(parameter)
    optimizer = torch.optim.SGD(
        [dict(params=groups[False], lr=lr), dict(params=groups[True], lr=head_lr)],
        momentum=float(vectors['train.momentum']),
    )
    for t in range(3):
        losses = step(model, vectors, f'train.{t}', None)
        compare_losses(losses, vectors, vectors[f'train.{t}.losses'])
        compare_gradients(model, vectors, f'train.{t}')
        if t == 0:
            parameters = dict(model.student.named_parameters())
            for key, value in under(vectors, 'train.0.grad.').items():
                assert_close_to_largest(parameters[key].grad, value, MMSEG, key)
            grid = model.shuffle.grid(vectors['train.student_image'].shape[2:])
            image = shuffle(vectors['train.student_image'], vectors['train.0.perm'].long(), grid)
            assert torch.equal(image, vectors['train.0.image_perturbed'])
            teacher = model.pseudo[0].logits[..., 5::16, 9::16]
            assert_close_to_largest(teacher, vectors['train.0.logits_teacher_every_16th'], MMSEG)
        optimizer.step()

    final = model.student.state_dict()
    for name, value in model.teacher.module.state_dict().items():
        part, _, rest = name.partition('.')
        final[f'{part}_ema.{rest}'] = value
    names = vectors['train.states'].tolist()
    for name, norm, dot in zip(names, vectors['train.final_norm'], vectors['train.final_dot'], strict=True):
        value = final[name].double().flatten()
        for found, recorded in ((value.norm(), norm), (rated(value), dot)):
            assert abs(found - recorded) <= MMSEG * max(float(norm), 1.0), name


@pytest.mark.parametrize('released', [False, True])
def test_a_step_with_cutmix(golden, released):
    vectors = doubled(golden('s4former'))
    prefix = 'as_released.train_cutmix'
    model = trained(
        vectors,
        mix_teacher_logits=not released,
        unlabeled_weight=float(vectors[f'{prefix}.beta']),
    )
    size = tuple(vectors['train.student_image'].shape[2:])
    boxes = boxes_of(vectors[f'{prefix}.boxes'], size)
    losses = step(model, vectors, prefix, boxes)
    expected = prefix if released else 'teacher_mixed.train_cutmix'
    compare_losses(losses, vectors, vectors[f'{expected}.losses'])
    total = sum(value for name, value in losses.items() if 'loss' in name).detach()
    torch.testing.assert_close(total, vectors[f'{expected}.total'], rtol=MMSEG, atol=0)
    if released:
        compare_gradients(model, vectors, prefix)


def test_the_released_mean_teacher_is_the_supervised_baseline(golden):
    """Its release builds no unsupervised loss; ours does, and shares the supervised part."""
    vectors = doubled(golden('s4former'))
    model = trained(vectors)
    names = vectors['as_released.mean_teacher.loss_names'].tolist()
    assert set(names) == {name for name in LOSSES if 'unsup' not in name}
    losses = step(model, vectors, 'train.0', None)
    expected = dict(zip(names, vectors['as_released.mean_teacher.losses'], strict=True))
    for name, value in expected.items():
        torch.testing.assert_close(losses[LOSSES[name]].detach(), value, rtol=MMSEG, atol=0)
