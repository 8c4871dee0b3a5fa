"""A model from a work dir, a checkpoint alone, chosen.py or a config."""

import os

import pytest
import torch

from allspark_mmseg.trained_model import choose_network, find_checkpoint, load_model, read_model_config

from .helpers.checkpoints import META, model_config, write_checkpoint
from .helpers.tiny_models import build_model, tiny_head, tiny_segmentor


def write_config(path, **keys):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in (model_config() | keys).items()))
    return path


def first_weight(model):
    return next(model.backbone.parameters())


def test_the_chosen_network_comes_first_then_the_best_then_the_last(tmp_path):
    for name in ('iter_4.pth', 'best_mIoU_iter_2.pth', 'best_mIoU_iter_3.pth', 'chosen.pth'):
        (tmp_path / name).touch()
    os.utime(tmp_path / 'best_mIoU_iter_3.pth', (1, 1))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_4.pth'))
    found = []
    for _ in range(4):
        found.append(find_checkpoint(tmp_path).name)
        (tmp_path / found[-1]).unlink()
        if found[-1] == 'iter_4.pth':
            break
    assert found == ['chosen.pth', 'best_mIoU_iter_2.pth', 'best_mIoU_iter_3.pth', 'iter_4.pth']


def test_a_work_dir_without_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no checkpoint; expected chosen\.pth'):
        find_checkpoint(tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'deleted.pth'))
    with pytest.raises(FileNotFoundError, match='has no checkpoint'):
        find_checkpoint(tmp_path)


def test_a_checkpoint_alone(tmp_path):
    path = write_checkpoint(tmp_path / 'a.pth')
    model = load_model(path, device='cpu')
    state = torch.load(path)['state_dict']
    assert not model.training
    assert model.dataset_meta['classes'] == META['classes']
    assert model.cfg.load_from == str(path)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_initial_weights_are_not_fetched(tmp_path):
    config = model_config()
    config['model']['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='absent.pth')
    model = load_model(write_checkpoint(tmp_path / 'a.pth', config), device='cpu')
    model.init_weights()  # would read absent.pth


def test_a_work_dir_and_the_config_in_it(tmp_path):
    write_checkpoint(tmp_path / 'chosen.pth', seed=1)
    config = write_config(tmp_path / 'chosen.py')
    weight = torch.load(tmp_path / 'chosen.pth')['state_dict']['backbone.layers.0.0.projection.weight']
    for source in (tmp_path, config):
        model = load_model(source, device='cpu')
        assert torch.equal(model.state_dict()['backbone.layers.0.0.projection.weight'], weight)


def test_a_config_finds_its_work_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / 'configs' / 'mine' / 'cracks.py')
    with pytest.raises(FileNotFoundError, match='work_dirs/mine/cracks has no checkpoint'):
        load_model(config)
    best = write_checkpoint(tmp_path / 'work_dirs' / 'mine' / 'cracks' / 'best_mIoU_iter_1.pth', seed=1)
    assert load_model(config, device='cpu').cfg.load_from == str(best.relative_to(tmp_path))
    own = write_config(tmp_path / 'own.py', work_dir=str(tmp_path / 'runs'))
    other = write_checkpoint(tmp_path / 'runs' / 'chosen.pth')
    assert load_model(own, device='cpu').cfg.load_from == str(other)


def test_a_named_checkpoint_wins(tmp_path):
    write_checkpoint(tmp_path / 'chosen.pth', seed=1)
    named = write_checkpoint(tmp_path / 'other' / 'mine.pth', seed=2)
    model = load_model(write_config(tmp_path / 'chosen.py'), named, device='cpu')
    assert torch.equal(first_weight(model), first_weight(load_model(named, device='cpu')))


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth does not exist; expected a config'):
        load_model(tmp_path / 'nothing.pth')
    plain = tmp_path / 'plain.pth'
    torch.save(dict(state_dict={}), plain)
    with pytest.raises(ValueError, match=r'plain\.pth contains no config \(meta\.cfg\)'):
        read_model_config(plain)


def test_weights_of_another_network_are_refused(tmp_path):
    config = write_config(tmp_path / 'config.py')
    path = write_checkpoint(tmp_path / 'a.pth')
    checkpoint = torch.load(path)
    weight = checkpoint['state_dict'].pop('decode_head.conv_seg.weight')
    torch.save(checkpoint, path)
    with pytest.raises(
        ValueError, match=r'another network than the config: decode_head\.conv_seg\.weight is missing'
    ):
        load_model(config, path, device='cpu')
    checkpoint['state_dict']['decode_head.conv_seg.weight'] = weight[:2]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r'size mismatch for decode_head\.conv_seg\.weight'):
        load_model(config, path, device='cpu')


def test_an_auxiliary_head_may_be_missing(tmp_path):
    segmentor = tiny_segmentor(auxiliary_head=tiny_head() | dict(in_index=[0, 1, 2, 3]))
    config = write_config(tmp_path / 'config.py', model=segmentor)
    assert load_model(config, write_checkpoint(tmp_path / 'a.pth'), device='cpu').with_auxiliary_head


def test_a_plain_checkpoint_fills_student_and_teacher(tmp_path):
    model = dict(type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor(), teacher=dict(momentum=0.1))
    config = write_config(tmp_path / 'config.py', model=model)
    loaded = load_model(config, write_checkpoint(tmp_path / 'a.pth'), device='cpu')
    assert torch.equal(first_weight(loaded.student), first_weight(loaded.teacher.module))


def test_classes_come_from_the_config_if_the_checkpoint_has_none(tmp_path):
    path = write_checkpoint(tmp_path / 'a.pth', dataset_meta=None)
    assert load_model(path, device='cpu').dataset_meta['classes'] == META['classes']


def test_a_device_that_is_not_there(tmp_path):
    path = write_checkpoint(tmp_path / 'a.pth')
    for device in ('cuda:99', 'nothing'):
        with pytest.raises(ValueError, match=f'--device {device} cannot be used'):
            load_model(path, device=device)


def test_the_config_of_a_checkpoint(tmp_path):
    assert read_model_config(write_checkpoint(tmp_path / 'a.pth')).model.type == tiny_segmentor()['type']


def test_the_network_is_chosen():
    config = dict(type='allspark_mmseg.MeanTeacher', segmentor=tiny_segmentor(), predict_on='teacher')
    model = build_model(config)
    assert choose_network(model, None) is model.teacher.module
    assert choose_network(model, 'student') is model.student is choose_network(model.student, None)
    assert model.predictor is model.student
    assert choose_network(model, 'teacher') is model.teacher.module is model.predictor
    with pytest.raises(ValueError, match=r'--student: the checkpoint holds one network \(EncoderDecoder\)'):
        choose_network(model.student, 'student')
    without = build_model(dict(type='allspark_mmseg.SelfTraining', segmentor=tiny_segmentor()))
    with pytest.raises(ValueError, match='SelfTraining of the checkpoint has no teacher'):
        choose_network(without, 'teacher')


def test_the_preprocessor_of_the_runner_counts(tmp_path):
    """A config can have data_preprocessor beside the model, as in MMEngine."""
    config = model_config()
    preprocessor = config['model'].pop('data_preprocessor')
    mean = [1.0, 2.0, 3.0]
    config['data_preprocessor'] = preprocessor | dict(mean=mean)
    path = write_checkpoint(tmp_path / 'a.pth', config)
    assert load_model(path, device='cpu').data_preprocessor.mean.flatten().tolist() == mean
