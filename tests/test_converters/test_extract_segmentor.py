"""The student or the teacher of a run becomes a plain MMSegmentation model."""

import pytest
import torch

from ..helpers.tiny_models import build_model, tiny_segmentor

META = dict(dataset_meta=dict(classes=('sky', 'road', 'tree', 'car'), palette=[[0, 0, 0]] * 4), epoch=3)


@pytest.fixture
def run(tmp_path) -> tuple:
    """A method whose teacher is not its student, and the checkpoint of it."""
    model = build_model(dict(type='allspark_mmseg.MeanTeacher', segmentor=tiny_segmentor())).eval()
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    path = tmp_path / 'epoch_3.pth'
    torch.save(
        dict(state_dict=model.state_dict(), meta=META, optimizer=dict(state={}, param_groups=[])), path
    )
    return model, path


@torch.no_grad()
@pytest.mark.parametrize('who', ['student', 'teacher'])
def test_the_extracted_model_predicts_the_same(convert, tmp_path, run, who):
    model, path = run
    options = ['--teacher'] if who == 'teacher' else []
    printed = convert('extract_segmentor', path, tmp_path / 'plain.pth', *options)
    assert f'the {who}, 4 classes' in printed
    stored = torch.load(tmp_path / 'plain.pth', weights_only=True)
    assert stored.keys() == {'meta', 'state_dict'} and stored['meta'] == dict(
        dataset_meta=META['dataset_meta']
    )
    plain = build_model(tiny_segmentor()).eval()
    plain.load_state_dict(stored['state_dict'], strict=True)
    image = torch.randn(1, 3, 65, 65)
    source = model.student if who == 'student' else model.teacher.module
    assert torch.equal(plain.predict(image)[0].seg_logits.data, source.predict(image)[0].seg_logits.data)
    other = model.teacher.module if who == 'student' else model.student
    assert not torch.equal(plain.predict(image)[0].seg_logits.data, other.predict(image)[0].seg_logits.data)


@pytest.mark.parametrize(
    'keep, options, printed',
    [
        (
            lambda key: key.startswith('student.'),
            ['--teacher'],
            'The run has no teacher; omit --teacher',
        ),
        (lambda key: not key.startswith('student.'), [], 'not a checkpoint of a semi-supervised run'),
    ],
)
def test_a_missing_segmentor_is_refused(convert, tmp_path, run, keep, options, printed):
    state = {key: value for key, value in run[0].state_dict().items() if keep(key)}
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    refused = convert(
        'extract_segmentor', tmp_path / 'other.pth', tmp_path / 'plain.pth', *options, refused=True
    )
    assert printed in refused and not (tmp_path / 'plain.pth').exists()
