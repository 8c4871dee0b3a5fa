"""The wrapper around a student: checkpoints in and out, data preprocessor, delegation."""

import mmengine.runner
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from allspark_mmseg.datasets import MultiViewSegDataPreProcessor

from ..helpers.tiny_models import (
    CLASSES,
    CROP,
    behind_bottleneck,
    build_model,
    tiny_head,
    tiny_resnet,
    tiny_segmentor,
)


def self_training(segmentor: dict | None = None, **overrides) -> dict:
    return dict(type='allspark_mmseg.SelfTraining', segmentor=segmentor or tiny_segmentor()) | overrides


def allspark(segmentor: dict | None = None, **overrides) -> dict:
    student = behind_bottleneck(segmentor or tiny_segmentor())
    return dict(type='allspark_mmseg.AllSpark', segmentor=student) | overrides


def stock_segformer() -> dict:
    """MMSegmentation's own backbone and head."""
    head = tiny_head() | dict(type='SegformerHead', in_index=[0, 1, 2, 3])
    return tiny_segmentor(
        backbone=tiny_segmentor()['backbone'] | dict(type='MixVisionTransformer'), decode_head=head
    )


def stock_resnet() -> dict:
    """With an auxiliary head, whose keys resemble the decode head's."""
    auxiliary = dict(
        type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1, num_classes=CLASSES,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )  # fmt: skip
    return tiny_resnet(auxiliary_head=auxiliary)


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Every tensor other than any fresh model's, buffers included."""
    for value in model.state_dict().values():
        value.copy_(
            torch.randint(1, 99, value.shape) if not value.is_floating_point() else torch.rand(value.shape)
        )
    return model


def plain_state_of_student(model) -> dict:
    """The student's tensors under the names that they have without wrapper and bottleneck."""
    return {
        name.replace('decode_head.decoder.', 'decode_head.'): value
        for name, value in model.student.state_dict().items()
        if '.bottleneck.' not in name
    }


@pytest.mark.parametrize('wrap', [self_training, allspark])
@pytest.mark.parametrize('stock', [stock_segformer, stock_resnet])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_plain_checkpoint_fills_the_student(wrap, stock, prefix, tmp_path):
    plain = randomized(build_model(stock()))
    stored = {f'{prefix}{name}': value for name, value in plain.state_dict().items()}
    torch.save(dict(state_dict=stored, meta={}), tmp_path / 'plain.pth')
    model = build_model(wrap(stock()))
    mmengine.runner.load_checkpoint(model, str(tmp_path / 'plain.pth'), map_location='cpu')
    filled = plain_state_of_student(model)
    expected = plain.state_dict()
    assert filled.keys() == expected.keys()
    for name, value in filled.items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize('wrap', [self_training, allspark])
def test_a_plain_state_dict_loads_and_is_not_changed(wrap):
    plain = randomized(build_model(stock_segformer())).state_dict()
    names = list(plain)
    model = build_model(wrap(stock_segformer()))
    missing, unexpected = model.load_state_dict(plain, strict=False)
    assert not unexpected
    assert all('.bottleneck.' in name or name == 'memory_ready' for name in missing), missing
    assert all(torch.equal(value, plain[name]) for name, value in plain_state_of_student(model).items())
    assert list(plain) == names


def test_a_plain_checkpoint_with_bottleneck_fills_the_student():
    """An AllSparkHead that was trained in a plain EncoderDecoder."""
    plain = randomized(build_model(behind_bottleneck(stock_segformer()))).state_dict()
    model = build_model(allspark(stock_segformer()))
    missing, unexpected = model.load_state_dict(plain, strict=False)
    assert (missing, unexpected) == (['memory_ready'], [])
    assert all(torch.equal(value, plain[name]) for name, value in model.student.state_dict().items())


@pytest.mark.parametrize('wrap', [self_training, allspark])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_checkpoint_of_the_method_loads_unchanged(wrap, prefix, tmp_path):
    stored = randomized(build_model(wrap())).state_dict()
    torch.save(
        dict(state_dict={f'{prefix}{name}': value for name, value in stored.items()}), tmp_path / 'own.pth'
    )
    model = build_model(wrap())
    mmengine.runner.load_checkpoint(model, str(tmp_path / 'own.pth'), map_location='cpu', strict=True)
    loaded = model.state_dict()
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in loaded.items())


def test_the_state_of_the_student_is_a_plain_checkpoint():
    model = randomized(build_model(self_training(stock_segformer())))
    plain = build_model(stock_segformer())
    plain.load_state_dict(model.student.state_dict())
    image = torch.randn(1, 3, *CROP)
    with torch.no_grad():
        pair = [m.eval().predict(image)[0].seg_logits.data for m in (plain, model)]
    assert torch.equal(*pair)


def test_a_wrapper_inside_another_module_loads_a_plain_checkpoint():
    plain = randomized(build_model(stock_segformer())).state_dict()
    outer = torch.nn.ModuleDict(dict(inner=build_model(self_training(stock_segformer()))))
    outer.load_state_dict({f'inner.{name}': value for name, value in plain.items()})
    assert all(torch.equal(value, plain[name]) for name, value in outer['inner'].student.state_dict().items())


def assert_preprocesses_like(model, mean: list[float]) -> None:
    preprocessor = model.data_preprocessor
    assert isinstance(preprocessor, MultiViewSegDataPreProcessor)
    assert preprocessor.mean.flatten().tolist() == mean


def test_data_preprocessor_has_the_arguments_of_the_segmentor():
    model = build_model(self_training())
    assert_preprocesses_like(model, [120.0, 110.0, 100.0])
    pixel = torch.tensor([100, 165, 180], dtype=torch.uint8)[:, None, None]  # BGR
    batch = model.data_preprocessor(dict(inputs=[pixel], data_samples=[SegDataSample()]), training=True)
    assert batch['inputs'].shape == (1, 3, *CROP)
    assert batch['inputs'][0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]  # RGB, normalized
    assert type(model.student.data_preprocessor) is SegDataPreProcessor


@pytest.mark.parametrize('name', ['SegDataPreProcessor', 'mmseg.SegDataPreProcessor'])
def test_data_preprocessor_has_the_arguments_of_the_runner(name, tmp_path):
    """As in configs of MMSegmentation that name it at the top level."""
    segmentor = {key: value for key, value in tiny_segmentor().items() if key != 'data_preprocessor'}
    top_level = dict(type=name, mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=True, size=CROP)
    runner = Runner(
        ConfigDict(self_training(segmentor)),
        str(tmp_path),
        data_preprocessor=ConfigDict(top_level),
        experiment_name=tmp_path.name,
        default_scope='mmseg',
        log_level='ERROR',
    )
    assert_preprocesses_like(runner.model, [1.0, 2.0, 3.0])


def test_the_data_preprocessor_of_the_segmentor_wins_over_the_runner():
    top_level = dict(type='SegDataPreProcessor', mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0])
    assert_preprocesses_like(build_model(self_training(data_preprocessor=top_level)), [120.0, 110.0, 100.0])


@pytest.mark.parametrize('built', [False, True])
def test_an_explicit_data_preprocessor_is_used_unchanged(built):
    config = dict(
        type='allspark_mmseg.MultiViewSegDataPreProcessor',
        mean=[4.0, 5.0, 6.0],
        std=[1.0, 1.0, 1.0],
        size=CROP,
    )
    own = MODELS.build(config) if built else config
    model = build_model(self_training(data_preprocessor=own))
    assert_preprocesses_like(model, [4.0, 5.0, 6.0])
    assert not built or model.data_preprocessor is own


@pytest.mark.parametrize('name, value', [('pretrained', 'x.pth'), ('train_cfg', dict())])
def test_arguments_of_the_segmentor_are_refused_on_the_wrapper(name, value):
    with pytest.raises(
        ValueError, match=f'SelfTraining: {name} is .*, expected None, because it belongs in segmentor'
    ):
        build_model(self_training(**{name: value}))
    build_model(self_training(**{name: None}))


@torch.no_grad()
def test_the_wrapper_delegates_to_its_student():
    model = build_model(self_training(stock_resnet())).eval()
    student = model.student
    for name in ('align_corners', 'num_classes', 'out_channels', 'decode_head'):
        assert getattr(model, name) is getattr(student, name)
    image = torch.randn(1, 3, *CROP)
    metas = [dict(img_shape=CROP, ori_shape=CROP)]
    assert torch.equal(model.encode_decode(image, metas), student.encode_decode(image, metas))
    assert torch.equal(model(image, mode='tensor'), student(image, mode='tensor'))
    for own, of_student in zip(model.extract_feat(image), student.extract_feat(image), strict=True):
        assert torch.equal(own, of_student)


def test_pretrained_weights_of_the_student_are_loaded(tmp_path):
    plain = randomized(build_model(stock_segformer()))
    torch.save(plain.backbone.state_dict(), tmp_path / 'backbone.pth')
    segmentor = stock_segformer()
    segmentor['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth'))
    model = build_model(allspark(segmentor))
    model.init_weights()
    for name, value in model.student.backbone.state_dict().items():
        assert torch.equal(value, plain.backbone.state_dict()[name]), name
