"""How the command line changes a config: what a run resumes from, and which loss it has."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.registry import MODELS

from allspark_mmseg.cli import train
from allspark_mmseg.losses import CrossEntropyLoss
from allspark_mmseg.losses.cross_entropy import use_weighted_loss

from ..helpers.configs import CONFIGS


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a config with load_from as ``train.py CONFIG --work-dir WORK [--resume ...]`` does."""
    path = tmp_path / 'config.py'
    path.write_text("load_from = 'supervised.pth'\n")

    def call(*options: str) -> Config:
        command = ['train.py', str(path), '--work-dir', str(tmp_path / 'work'), *options]
        monkeypatch.setattr('sys.argv', command)
        return train.read_config(train.parse_args())

    return call


def test_a_new_run_starts_from_load_from(read):
    cfg = read()
    assert (cfg.load_from, cfg.resume) == ('supervised.pth', False)


@pytest.mark.parametrize('folder_exists', [False, True])
def test_resume_without_a_checkpoint_starts_from_load_from(read, tmp_path, folder_exists):
    if folder_exists:
        (tmp_path / 'work').mkdir()
    cfg = read('--resume')
    assert (cfg.load_from, cfg.resume) == ('supervised.pth', False)


def test_resume_takes_the_last_checkpoint_of_the_work_dir(read, tmp_path):
    checkpoint = Path(tmp_path, 'work', 'iter_8.pth')
    checkpoint.parent.mkdir()
    checkpoint.touch()
    (checkpoint.parent / 'last_checkpoint').write_text(str(checkpoint))
    cfg = read('--resume')
    assert (cfg.load_from, cfg.resume) == (str(checkpoint), True)


def test_resume_falls_back_to_an_earlier_checkpoint(read, tmp_path):
    for name in ('iter_4.pth', 'iter_16.pth'):
        Path(tmp_path, 'work', name).parent.mkdir(exist_ok=True)
        Path(tmp_path, 'work', name).touch()
    Path(tmp_path, 'work', 'last_checkpoint').write_text('elsewhere/iter_8.pth')
    assert read('--resume').load_from == str(tmp_path / 'work' / 'iter_4.pth')


def test_a_named_checkpoint_wins(read):
    cfg = read('--resume', 'other.pth')
    assert (cfg.load_from, cfg.resume) == ('other.pth', True)


def test_resume_of_the_config_has_mmengines_meaning(read, tmp_path):
    cfg = read('--cfg-options', 'resume=True')
    assert (cfg.load_from, cfg.resume) == ('supervised.pth', True)
    (tmp_path / 'config.py').write_text('load_from = None\nresume = True\n')
    assert not read().resume, 'there is no checkpoint yet'
    checkpoint = Path(tmp_path, 'work', 'iter_8.pth')
    checkpoint.parent.mkdir()
    checkpoint.touch()
    (checkpoint.parent / 'last_checkpoint').write_text(str(checkpoint))
    assert (read().load_from, read().resume) == (str(checkpoint), True)
    assert read('--resume', 'other.pth').load_from == 'other.pth'


@pytest.mark.parametrize('weights', ["'balanced'", "'sqrt_balanced'", '[1.0, 2.0, 1.0]'])
@pytest.mark.parametrize('recipe', ['allspark', 'fixmatch', 'supervised'])
def test_class_weight_alone_works_with_every_recipe(weights, recipe, tmp_path):
    head = f'decode_head=dict(loss_decode=dict(class_weight={weights}))'
    model = {
        'allspark': f'segmentor=dict({head.replace("dict(", "dict(decoder=dict(", 1)}))',
        'supervised': head,
    }
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{CONFIGS}/_base_/recipes/{recipe}.py'\n"
        f'model = dict({model.get(recipe, f"segmentor=dict({head})")})\n'
    )
    cfg = train.read_config(train.parse_args([str(tmp_path / 'mine.py')]))
    node = cfg.model.get('segmentor', cfg.model).decode_head
    loss = node.get('decoder', node).loss_decode
    assert loss.type == 'allspark_mmseg.CrossEntropyLoss' and loss.avg_non_ignore
    assert isinstance(MODELS.build(loss), CrossEntropyLoss)


def test_class_weight_alone_works_with_a_published_config(tmp_path, capsys):
    """MMSegmentation's loss, which these configs have, would fail."""
    decoder = "dict(loss_decode=dict(class_weight='balanced'))"
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{CONFIGS}/allspark/voc_1over16.py'\n"
        f'model = dict(segmentor=dict(decode_head=dict(decoder={decoder})))'
    )
    cfg = train.read_config(train.parse_args([str(tmp_path / 'mine.py')]))
    loss = cfg.model.segmentor.decode_head.decoder.loss_decode
    assert loss.type == 'allspark_mmseg.CrossEntropyLoss' and loss.avg_non_ignore
    assert '1 loss(es) are allspark_mmseg.CrossEntropyLoss' in capsys.readouterr().out


@pytest.mark.parametrize(
    'loss', [dict(avg_non_ignore=True), dict(use_sigmoid=True, class_weight=[1.0]), dict(class_weight=[1.0])]
)
def test_losses_that_work_stay(loss):
    loss = dict(type='CrossEntropyLoss', **loss)
    assert use_weighted_loss(dict(decode_head=[dict(loss_decode=loss)])) == 0
    assert loss['type'] == 'CrossEntropyLoss'


def test_control_starts_from_the_supervised_network_of_the_run(read, tmp_path):
    with pytest.raises(ValueError, match=r'--control: .*config\.py has no WarmStartHook'):
        read('--control')
    hooks = "custom_hooks = [dict(type='allspark_mmseg.WarmStartHook', max_iters=5)]\n"
    (tmp_path / 'config.py').write_text(hooks)
    cfg = read('--control')
    assert cfg.custom_hooks[0].control and not cfg.get('load_from')
    assert cfg.work_dir == str(tmp_path / 'work_control')
    supervised = tmp_path / 'work' / 'supervised.pth'
    supervised.parent.mkdir()
    supervised.touch()
    assert read('--control').load_from == str(supervised)
    assert 'control' not in read().custom_hooks[0] and not read().get('load_from')


def test_another_batch_is_allowed_on_request(read, tmp_path):
    with pytest.raises(ValueError, match=r'--allow-new-batch: .*config\.py has no default_hooks'):
        read('--allow-new-batch')
    hooks = "default_hooks = dict(exact_resume=dict(type='allspark_mmseg.ExactResumeHook'))\n"
    (tmp_path / 'config.py').write_text(hooks)
    assert read('--allow-new-batch').default_hooks.exact_resume.allow_new_batch
    assert 'allow_new_batch' not in read().default_hooks.exact_resume
