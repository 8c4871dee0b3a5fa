"""The README and the pages of docs: what they name exists, and what they repeat is up to date."""

import importlib.util
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from allspark_mmseg import methods, registry

from .helpers.configs import ROOT, read_rows


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links = load(ROOT / 'docs' / 'links.py')

PAGES = ['README.md', 'data/README.md']
PAGES += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / 'docs').rglob('*.md'))]
FOLDERS = 'allspark_mmseg|benchmarks|configs|docs|tests|tools'
PATH = re.compile(rf'(?<![\w./-])(?:{FOLDERS})/[\w./*-]*[\w/*]')
# the config that a reader writes, a folder of the wheel, and the configs of S4Former's release
NOT_HERE = (
    'configs/allspark/mine.py',
    'configs/mine',
    'configs/tiles',
    'allspark_mmseg/.mim',
    'configs/setr/',
)
PLACEHOLDER = re.compile(r'(?<![a-z])(?:METHOD|NAME|X)(?![a-z])')
REGISTRIES = [value for value in vars(registry).values() if getattr(value, 'scope', '') == registry.SCOPE]
# page of a method -> the class whose docstring has the same algorithm box
ALGORITHMS = {
    'allspark': methods.AllSpark,
    'css': methods.CSSBaseline.__base__,
    'fixmatch': methods.FixMatch,
    'mean_teacher': methods.MeanTeacher,
    's4former': methods.S4Former,
    'self_training': methods.SelfTraining,
    'unimatch': methods.UniMatch,
    'unimatch_v2': methods.UniMatchV2,
}


@pytest.fixture(scope='module', params=PAGES)
def page(request) -> str:
    return request.param


@pytest.fixture(scope='module')
def text(page) -> str:
    return (ROOT / page).read_text()


def paths_in(text: str) -> Iterator[str]:
    """Paths and patterns (``*``) of the repository that a text names, without placeholders."""
    for path in PATH.findall(text):
        if not path.startswith(NOT_HERE) and not PLACEHOLDER.search(path):
            yield path


def headings(markdown: str) -> set[str]:
    """Anchors of the headings of a page."""
    titles = re.findall(r'^#+ (.+)$', markdown, flags=re.MULTILINE)
    return {re.sub(r'\s+', '-', re.sub(r'[^\w\s-]', '', title).strip().lower()) for title in titles}


def is_known(name: str) -> bool:
    """Whether ``allspark_mmseg.NAME`` is in a registry, or a module or an attribute of one."""
    if any(name in found.module_dict for found in REGISTRIES):
        return True
    try:
        pkgutil.resolve_name(f'allspark_mmseg.{name}')  # imports modules at any depth
    except (ImportError, AttributeError):
        return False
    return True


def test_readme_is_short():
    lines = (ROOT / 'README.md').read_text().splitlines()
    assert len(lines) <= 160


def test_files_and_folders_exist(text):
    assert [path for path in paths_in(text) if not any(ROOT.glob(path))] == []


def test_relative_links_lead_to_files(page, text):
    targets = [match['target'] for match in links.LINK.finditer(text)]
    assert [target for target in targets if not (ROOT / links.resolve(target, page)).exists()] == []


def test_anchors_are_headings(page, text):
    for target, anchor in re.findall(r'\]\(([^)#:\s]*)#([^)\s]+)\)', text):
        path = links.resolve(target, page) if target else page
        assert anchor in headings((ROOT / path).read_text()), f'{target}#{anchor}'


def test_links_to_code_lead_to_one_line(text):
    for match in links.CODE.finditer(text):
        assert links.find_line(match['path'], match['text']) >= 1
        assert '|' not in match['text'], 'it would end the cell of a table'


def test_names_are_registered_or_importable(text):
    names = re.findall(r'(?<![\w/.])allspark_mmseg\.([A-Za-z_][\w.]*\w)', text)
    assert [name for name in names if not is_known(name)] == []


def test_tests_exist(text):
    """Full names (file::test), and names alone of tests in the files that the page names."""
    patterns = re.findall(r'tests/[\w/*]+\.py', text)
    named = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    defined = {path: re.findall(r'(?:def|class) (\w+)', path.read_text()) for path in named}
    for path, names in re.findall(r'`(tests/[\w/]+\.py)::([\w:]+)', text):
        assert set(names.split('::')) <= set(defined.get(ROOT / path, ())), f'{path}::{names}'
    known = {name for names in defined.values() for name in names}
    assert set(re.findall(r'`(test_\w+)`', text)) <= known


def test_printed_rows_exist(text):
    rows = read_rows()
    for word in re.findall(r'print_row\.py ([a-z][\w-]+)', text):
        assert any(word in row for row in rows), word


@pytest.mark.parametrize('name', ALGORITHMS)
def test_algorithm_is_that_of_the_docstring(name):
    (box, *_) = re.findall(r'```text\n(.*?)\n```', (ROOT / f'docs/methods/{name}.md').read_text(), re.DOTALL)
    docstring = inspect.getdoc(ALGORITHMS[name])
    block = re.search(r'\.\. code-block:: text\n\n((?: +.*\n|\n)+)', docstring)[1]
    assert box == textwrap.dedent(block).strip()


def test_site_has_all_pages():
    nav = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']
    entries = re.findall(r'[\w/]+\.md', str(nav))
    pages = [page.removeprefix('docs/') for page in PAGES if page.startswith('docs/')]
    shown = [entry for entry in entries if not entry.startswith('source/')]
    assert sorted(shown) == sorted(pages)
    assert all((ROOT / entry.removeprefix('source/')).exists() for entry in set(entries) - set(shown))


class TestLinks:
    def test_rewriting(self):
        line = links.find_line('docs/links.py', 'def find_line')
        markdown = (
            '{{ code docs/links.py "def find_line" }} [a](../../data/README.md#lists) [b](allspark.md) '
            '[c](https://a.b/c) [d](../own_data.md)\n```\n[e](../../LICENSE)\n```\n[f](../../setup.py)'
        )
        expected = (
            f'[`links.py:{line}`](../source/docs/links.py.md#__codelineno-0-{line}) '
            '[a](../source/data/README.md#lists) [b](allspark.md) '
            '[c](https://a.b/c) [d](../own_data.md)\n```\n[e](../../LICENSE)\n```\n[f](../source/setup.py.md)'
        )
        assert links.rewrite_links(markdown, 'docs/methods/css.md', 'methods/css.md') == expected

    def test_linked_files(self):
        markdown = '[a](../../setup.py) [b](css.md) [c](no.md) {{ code allspark_mmseg/mixing.py "paste(" }}'
        found = set(links.linked_files('docs/methods/css.md', markdown))
        assert found == {'setup.py', 'allspark_mmseg/mixing.py'}

    @pytest.mark.parametrize('text', ['import', 'no line contains this'])
    def test_text_of_several_lines_or_none(self, text):
        with pytest.raises(ValueError, match='expected one'):
            links.find_line('setup.py', text)

    def test_missing_file(self):
        with pytest.raises(ValueError, match='no such file'):
            links.find_line('docs/missing.py', 'text')
