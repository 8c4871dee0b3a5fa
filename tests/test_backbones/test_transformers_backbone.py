"""Backbones of ``transformers``: their features, their weights, every method, and the messages."""

import copy
import re
import sys

import pytest
import torch
from mmengine.config import Config

from allspark_mmseg.backbones import TransformersBackbone

from ..helpers.configs import CONFIGS, ROOT
from ..helpers.tiny_models import (
    CLASSES,
    batch,
    behind_bottleneck,
    build_model,
    losses_in,
    same,
    tiny_head,
    tiny_segmentor,
)

VIT = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, drop_path_rate=0.5)
PYRAMID = dict(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)
SWIN = dict(embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=4, image_size=64)
# model type -> its configuration, and the strides of its features
KINDS = {
    'dinov2': (dict(VIT, image_size=56, patch_size=14), [14] * 4),
    'dinov2_with_registers': (dict(VIT, image_size=56, patch_size=14), [14] * 4),
    'dinov3_vit': (dict(VIT, image_size=64, intermediate_size=32), [16] * 4),
    'dinov3_convnext': (PYRAMID, [4, 8, 16, 32]),
    'convnext': (PYRAMID, [4, 8, 16, 32]),
    'convnextv2': (PYRAMID, [4, 8, 16, 32]),
    'swin': (SWIN, [4, 8, 16, 32]),
    'swinv2': (SWIN, [4, 8, 16, 32]),
    'beit': (dict(VIT, image_size=64, intermediate_size=32), [16] * 4),
    'vitdet': (
        dict(VIT, image_size=64, pretrain_image_size=64, window_size=2, window_block_indices=[0, 2]),
        [16] * 4,
    ),
    'resnet': (dict(PYRAMID, embedding_size=8, layer_type='basic'), [4, 8, 16, 32]),
}
DINO = dict(KINDS['dinov3_vit'][0], drop_path_rate=0.0)
VIEWS = ('weak', 'strong_1', 'strong_2', 'mix_weak', 'mix_strong_1', 'mix_strong_2')


def backbone(kind: str, **options) -> dict:
    config = dict(model_type=kind, **KINDS[kind][0], **options.pop('config', {}))
    return dict(
        type='allspark_mmseg.TransformersBackbone', out_indices=(1, 2, 3, 4), config=config, **options
    )


def build(kind: str, **options) -> TransformersBackbone:
    settings = backbone(kind, **options)
    settings.pop('type')
    return TransformersBackbone(**settings).eval()


def saved(folder, kind: str = 'dinov3_vit', **config) -> str:
    """A folder as ``save_pretrained`` of the library writes it."""
    build(kind, config=config).model.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_features_are_those_of_the_library(kind):
    model, strides = build(kind), KINDS[kind][1]
    image = torch.randn(2, 3, 112, 224) if strides[0] == 14 else torch.randn(2, 3, 64, 128)
    found = model(image)
    expected = model.model(image).feature_maps
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    for feature, channels, stride in zip(found, model.channels, strides, strict=True):
        assert feature.shape == (2, channels, image.shape[2] // stride, image.shape[3] // stride)


@torch.no_grad()
def test_other_sizes_are_resized_to_whole_patches():
    model = build('dinov3_vit')
    image = torch.randn(1, 3, 70, 90)  # the nearest multiples of 16 are 64 and 96
    resized = torch.nn.functional.interpolate(image, (64, 96), mode='bilinear')
    for found, expected in zip(model(image), model(resized), strict=True):
        assert found.shape[2:] == (4, 6) and torch.equal(found, expected)


@pytest.mark.parametrize('indices', [(1, 2, 3, 4), (1, 2)])
@pytest.mark.parametrize('kind', KINDS)
def test_every_trainable_parameter_gets_a_gradient(kind, indices):
    """Distributed training waits for all of them."""
    config = dict(model_type=kind, **KINDS[kind][0]) | dict(drop_path_rate=0.0)
    if kind == 'resnet':
        config.pop('drop_path_rate')
    model = TransformersBackbone(out_indices=indices, config=config)
    sum(feature.square().sum() for feature in model(torch.randn(1, 3, 112, 112))).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert sum(parameter.requires_grad for parameter in model.parameters()) > 10


def test_drop_path_and_frozen_weights_follow_the_mode():
    image = torch.randn(4, 3, 64, 64)
    model = build('swin', config=dict(drop_path_rate=0.9)).train()
    assert not torch.equal(model(image)[-1], model(image)[-1])
    model.eval()
    assert torch.equal(model(image)[-1], model(image)[-1])
    frozen = build('swin', frozen=True).train()
    assert not frozen.model.training and not any(value.requires_grad for value in frozen.parameters())


def test_recomputation_gives_the_same_gradients():
    image = torch.randn(1, 3, 64, 64)
    found = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build('dinov2', with_cp=with_cp, config=dict(hidden_dropout_prob=0.0)).train()
        for part in model.modules():
            if hasattr(part, 'drop_prob'):
                part.drop_prob = 0.0
        sum(feature.square().sum() for feature in model(image)).backward()
        found.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert found[0].keys() == found[1].keys() and found[0]
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])
    with pytest.raises(ValueError, match='with_cp is True, expected False, because ResNetBackbone'):
        build('resnet', with_cp=True)


@torch.no_grad()
def test_a_copy_has_its_own_weights_and_features():
    model = build('dinov2')
    twin = copy.deepcopy(model)
    image = torch.randn(1, 3, 56, 56)
    before = model(image)
    for value in twin.parameters():
        value.add_(0.1 * torch.randn_like(value))
    assert torch.equal(model(image)[-1], before[-1])
    assert not torch.equal(twin(image)[-1], before[-1])


class TestWeights:
    def test_a_folder_fills_all_weights_when_training_starts(self, tmp_path):
        original = build('dinov3_vit').model
        original.save_pretrained(tmp_path)
        model = TransformersBackbone(str(tmp_path), out_indices=(2, 4))
        first = 'embeddings.patch_embeddings.weight'
        assert not torch.equal(model.model.state_dict()[first], original.state_dict()[first])
        model.init_weights()
        assert same(
            model.state_dict(), {f'model.{key}': value for key, value in original.state_dict().items()}
        )

    def test_keys_of_config_replace_those_of_the_folder(self, tmp_path):
        model = TransformersBackbone(saved(tmp_path), out_indices=(4,), config=dict(drop_path_rate=0.25))
        assert model.model.config.drop_path_rate == 0.25 and model.model.config.hidden_size == 16

    def test_bfloat16_weights_become_float32(self, tmp_path):
        build('dinov3_vit').model.bfloat16().save_pretrained(tmp_path)
        model = TransformersBackbone(str(tmp_path), out_indices=(4,))
        model.init_weights()
        assert {value.dtype for value in model.parameters()} == {torch.float32}

    def test_weights_of_another_network_are_refused(self, tmp_path):
        saved(tmp_path, 'convnext')
        model = TransformersBackbone(str(tmp_path), (4,), config=dict(model_type='dinov3_vit', **DINO))
        with pytest.raises(ValueError, match=r'fill none of the .* tensors of the DINOv3ViTBackbone'):
            model.init_weights()

    def test_partly_filled_weights_are_listed(self, tmp_path, monkeypatch):
        folder = saved(tmp_path)
        config = dict(model_type='dinov3_vit', **DINO) | dict(num_hidden_layers=5)
        logged = []
        module = 'allspark_mmseg.backbones.transformers_backbone'
        monkeypatch.setattr(f'{module}.print_log', lambda message, **_: logged.append(message))
        model = TransformersBackbone(folder, (4,), config=config)
        model.init_weights()
        (message,) = logged
        assert 'fills 75 of 92 tensors' in message and 'These stay random: ' in message
        assert 'model.layer.4.' in message and 'model.layer.3.' not in message

    def test_the_description_builds_the_same_network_without_the_folder(self, tmp_path):
        model = TransformersBackbone(saved(tmp_path), out_indices=(1, 3))
        again = TransformersBackbone('no/such-model', out_indices=(1, 3), config=model.description)
        again.load_state_dict(model.state_dict())
        image = torch.randn(1, 3, 64, 64)
        assert torch.equal(model.eval()(image)[-1], again.eval()(image)[-1])


class TestMessages:
    def test_a_missing_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'transformers', None)
        with pytest.raises(ImportError, match=r'allspark-mmseg\[hub\]'):
            build('resnet')

    def test_no_network(self, monkeypatch):
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
        with pytest.raises(FileNotFoundError) as error:
            TransformersBackbone('facebook/no-such-model')
        for part in (
            'https://huggingface.co/facebook/no-such-model',
            'hf download',
            'set model to this folder',
        ):
            assert part in str(error.value)

    def test_a_folder_without_a_config(self, tmp_path):
        (tmp_path / 'weights.bin').touch()
        with pytest.raises(FileNotFoundError, match=r'has weights\.bin, expected config\.json'):
            TransformersBackbone(str(tmp_path))

    @pytest.mark.parametrize('indices', [(0, 9), (2, 1), (1, 1), ()])
    def test_wrong_stages_are_named(self, indices):
        with pytest.raises(ValueError, match=r'out_indices is .* 0 \(stem\), 1 \(stage1\)'):
            TransformersBackbone(out_indices=indices, config=backbone('resnet')['config'])

    @pytest.mark.parametrize(
        'config, text',
        [
            ({}, 'model is None'),
            (dict(model_type='resnett'), 'model_type is'),
            (dict(model_type='bert'), 'no backbone'),
            (dict(model_type='timm_backbone'), 'names no stages'),
        ],
    )
    def test_no_or_another_network(self, config, text):
        with pytest.raises(ValueError, match=text):
            TransformersBackbone(config=config)

    @pytest.mark.parametrize(
        'change, text',
        [
            (dict(drop_path_rte=0.3), "config is 'drop_path_rte', expected 'drop_path_rate'"),
            (dict(hidden_size='wide'), 'refuses a value of config: .*hidden_size'),
            (dict(hidden_act='nope'), 'refuses a value of config: .*nope'),
        ],
    )
    @pytest.mark.parametrize('from_folder', [False, True])
    def test_wrong_keys_and_values_are_named(self, change, text, from_folder, tmp_path):
        settings = dict(config=DINO | dict(model_type='dinov3_vit') | change)
        if from_folder:
            settings = dict(model=saved(tmp_path), config=change)
        with pytest.raises(ValueError, match=f'(?s){text}'):
            TransformersBackbone(**settings)


def plain(kind: str = 'dinov3_vit') -> dict:
    settings = backbone(kind)
    widths = [16] * 4 if 'dino' in kind else PYRAMID['hidden_sizes']
    return tiny_segmentor(backbone=settings, decode_head=tiny_head(widths))


def with_representations() -> dict:
    head = dict(
        type='allspark_mmseg.RepresentationHead',
        in_channels=[8, 32],
        channels=8,
        c1_channels=4,
        representation_channels=6,
        num_classes=CLASSES,
        norm_cfg=dict(type='GN', num_groups=2),
    )
    return plain('resnet') | dict(decode_head=head)


METHODS = {
    'AllSpark': lambda: behind_bottleneck(plain(), in_channels=16, crop_size=64, stride=16),
    'SelfTraining': plain,
    'MeanTeacher': plain,
    'FixMatch': plain,
    'UniMatch': lambda: plain('convnext'),
    'UniMatchV2': plain,
    'CSSMix': with_representations,
}


@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_it(method):
    model = build_model(dict(type=f'allspark_mmseg.{method}', segmentor=METHODS[method]())).train()
    model.init_weights()
    losses_in(model.loss(*batch(size=(64, 64), views=VIEWS))).backward()
    moved = [name for name, value in model.student.backbone.named_parameters() if value.grad is not None]
    assert len(moved) > 10
    (sample, *_) = model.eval().predict(torch.randn(1, 3, 70, 90))
    assert sample.pred_sem_seg.data.shape == (1, 70, 90)


def test_the_documented_config_fits(tmp_path):
    text = (ROOT / 'docs' / 'own_data.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    (block,) = [block for block in blocks if 'TransformersBackbone' in block]
    (tmp_path / 'mine.py').write_text(block.replace("'../_base_", f"'{CONFIGS}/_base_"))
    segmentor = Config.fromfile(tmp_path / 'mine.py').model.segmentor
    settings = segmentor.backbone.copy()
    settings.pop('type')
    vits16 = dict(model_type='dinov3_vit', hidden_size=384, num_hidden_layers=12, intermediate_size=64)
    found = TransformersBackbone(**settings, config=vits16)
    assert found.channels == segmentor.decode_head.in_channels and found.source == settings.model


def test_s4former_names_what_the_backbone_lacks():
    with pytest.raises(ValueError, match='attention_bias'):
        build_model(dict(type='allspark_mmseg.S4Former', segmentor=plain()))


@pytest.mark.parametrize('fails', [False, True])
def test_a_network_that_cannot_be_traced_stays_trainable(monkeypatch, fails):
    """Some networks take one size of images alone, or read the values of the image."""
    network = type(build('resnet').model)
    forward = network.forward

    def reads_values(self, image, *args, **kwargs):
        if fails and image.is_meta:
            raise ValueError('values are needed')
        return forward(self, image, *args, **kwargs)

    monkeypatch.setattr(network, 'forward', reads_values)
    printed = []
    module = sys.modules[TransformersBackbone.__module__]
    monkeypatch.setattr(module, 'print_log', lambda text, **_: printed.append(text))
    model = TransformersBackbone(out_indices=(1, 2), config=backbone('resnet')['config'])
    assert all(each.requires_grad for each in model.parameters()) == fails
    assert any('(values are needed). Distributed training can need' in text for text in printed) == fails
