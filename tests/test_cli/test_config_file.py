"""Reading of configs."""

import copy
import pickle

import pytest
from mmengine.config import Config

from allspark_mmseg.cli.config_file import read_config_file


@pytest.fixture
def formatted(monkeypatch) -> list[str]:
    """The texts that YAPF formatted."""
    texts: list[str] = []

    def format_code(text, **_):
        texts.append(text)
        return text, True

    for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # which one depends on the version
        monkeypatch.setattr(f'{module}.FormatCode', format_code, raising=False)
    return texts


def test_the_text_is_formatted_once_for_each_content(tmp_path, formatted):
    path = tmp_path / 'mine.py'
    path.write_text(f'classes = ("a", "{tmp_path.name}")\nmodel = dict(type="A")\n')
    cfg = read_config_file(str(path))
    copies = [copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))]
    assert {each.pretty_text for each in (cfg, *copies)} == {Config.fromfile(path).pretty_text}
    cfg.dump(tmp_path / 'dumped.py')
    assert (tmp_path / 'dumped.py').read_text() == cfg.pretty_text
    assert len(formatted) == 2, 'once here, and once for the plain Config'
    cfg.model.type = 'B'
    assert cfg.pretty_text == copies[0].pretty_text.replace("'A'", "'B'")
    assert len(formatted) == 3
