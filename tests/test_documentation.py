"""Docstrings, annotations and shapes of everything public, and US spelling of all texts."""

import importlib
import inspect
import pkgutil
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

import allspark_mmseg

from .helpers.configs import ROOT

PACKAGE = 'allspark_mmseg'
UNANNOTATED = {'runner', 'data_batch', 'outputs'}  # arguments of MMEngine's hooks
TERM = r"[\w'.]+(?:\s*[-+*/]\s*[\w.]+)*|\w+\([^()]*\)|\*\w+"  # C, h * w, H / 14, ceil(H / s), *size
SHAPE = re.compile(rf'\((?:{TERM})(?:\s*,\s*(?:{TERM}))*,?\)')
SCALAR = re.compile(r'\b(?:[Ss]calars?|0-d)\b')
STATE_DICT = re.compile(r'\b[Ss]tate dicts?\b')  # its shapes are those of the model
TENSOR_DICT = re.compile(r'(?:dict|Mapping|OrderedDict)\[str, [\w.]*Tensor\]')
BRITISH = re.compile(
    r'\b('
    r'\w*colour\w*|\w*labelled|\w*labelling|grey\w*|\w*normalis\w*|\w*initialis\w*|centre\w*|licence\w*'
    r'|neighbour\w*|behaviour\w*|\w*optimis\w*|favour\w*|\w*generalis\w*|\w*visualis\w*|analys(e|ed|es|ing)'
    r'|catalogue\w*|\w*parametris\w*|\w*regularis\w*|\w*summaris\w*|\w*synchronis\w*|modelled|modelling'
    r'|cancelled|cancelling|artefact\w*|\w*quantis\w*|\w*serialis\w*|\w*standardis\w*|\w*utilis(e|ed|es|ing)'
    r'|\w*recognis\w*|\w*emphasis(e|ed|es|ing)|\w*memoris\w*|\w*randomis\w*|\w*minimis(e|ed|es|ing)'
    r'|\w*maximis(e|ed|es|ing)|\w*penalis\w*|\w*categoris\w*|\w*realis(e|ed|es|ing)|\w*organis\w*'
    r')\b',
    re.IGNORECASE,
)
TEXTS = ('*.py', '*.md', '*.sh', '*.toml', '*.yml', '*.yaml', '*.cfg', '*.txt', 'Makefile')


def modules() -> list[ModuleType]:
    infos = pkgutil.walk_packages(allspark_mmseg.__path__, f'{PACKAGE}.')
    return [allspark_mmseg, *(importlib.import_module(info.name) for info in infos)]


def is_public(name: str) -> bool:
    return not name.startswith('_')


def place(obj: Any) -> str:
    """File and line of an object, for the message."""
    obj = inspect.unwrap(obj) if callable(obj) else obj
    path = inspect.getsourcefile(obj) or ''
    line = 1 if inspect.ismodule(obj) else inspect.getsourcelines(obj)[1]
    return f'{path.removeprefix(f"{ROOT}/")}:{line}'


def functions_of(owner: type) -> Iterator[tuple[str, Callable]]:
    """Public methods and properties that a class itself defines, and its constructor."""
    for name, value in vars(owner).items():
        if isinstance(value, property):
            value = value.fget
        elif isinstance(value, cached_property):
            value = value.func
        elif isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if not inspect.isfunction(value) or not (is_public(name) or name == '__init__'):
            continue
        # methods that a dataclass or NamedTuple generates have no file
        if inspect.unwrap(value).__code__.co_filename.startswith(str(ROOT)):
            yield name, value


def public_objects() -> Iterator[tuple[str, Any, type | None]]:
    """All (name, object, class of a method), in the modules that define them."""
    for module in modules():
        yield module.__name__, module, None
        for name, value in vars(module).items():
            if not is_public(name) or getattr(value, '__module__', None) != module.__name__:
                continue
            if inspect.isclass(value):
                yield name, value, None
                for method, function in functions_of(value):
                    yield f'{name}.{method}', function, value
            elif inspect.isfunction(inspect.unwrap(value) if callable(value) else value):
                yield name, value, None


def public_functions() -> Iterator[tuple[str, Callable, type | None]]:
    for name, obj, owner in public_objects():
        if not inspect.ismodule(obj) and not inspect.isclass(obj):
            yield name, inspect.unwrap(obj), owner


def report(problems: list[str]) -> str:
    return '\n'.join([f'{len(problems)} problem(s):', *sorted(problems)])


def test_everything_public_has_a_docstring():
    problems = [
        f'{place(obj)}: {name} has no docstring'
        for name, obj, _ in public_objects()
        if not name.endswith('.__init__') and not (obj.__doc__ or '').strip()
    ]
    assert not problems, report(problems)


def unannotated(function: Callable) -> list[str]:
    signature = inspect.signature(function)
    names = [
        name
        for index, (name, parameter) in enumerate(signature.parameters.items())
        if parameter.annotation is parameter.empty
        and not (index == 0 and name in ('self', 'cls'))
        and name not in UNANNOTATED
    ]
    return names + ['return'] * (signature.return_annotation is signature.empty)


def test_public_functions_are_annotated():
    problems = [
        f'{place(function)}: {name} has no annotation of {", ".join(missing)}'
        for name, function, _ in public_functions()
        if (missing := unannotated(function))
    ]
    assert not problems, report(problems)


def tensor_annotations(function: Callable) -> list[str]:
    signature = inspect.signature(function)
    annotations = [parameter.annotation for parameter in signature.parameters.values()]
    return [str(item) for item in [*annotations, signature.return_annotation] if 'Tensor' in str(item)]


def states_shapes(text: str, annotations: list[str]) -> bool:
    """Whether a docstring has a shape, or says that the tensors are scalars or those of a state dict."""
    if has_shape(text) or SCALAR.search(text):
        return True
    only_dicts = all('Tensor' not in TENSOR_DICT.sub('', annotation) for annotation in annotations)
    return only_dicts and STATE_DICT.search(text) is not None


def has_shape(text: str) -> bool:
    return any(',' in match[0] for match in SHAPE.finditer(text))


def test_shapes_of_tensors_are_documented():
    problems = []
    for name, function, owner in public_functions():
        text = function.__doc__ or ''
        if function.__name__ in ('forward', '__init__') and owner is not None:
            text += owner.__doc__ or ''
        annotations = tensor_annotations(function)
        if annotations and not states_shapes(text, annotations):
            problems.append(f'{place(function)}: {name} has tensors, but its docstring has no shape')
    assert not problems, report(problems)


def tracked_texts() -> list[str]:
    command = ['git', 'ls-files', '--', *TEXTS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.splitlines() if path != 'tests/test_documentation.py']


def test_spelling_is_american():
    paths = tracked_texts()
    assert 'README.md' in paths and 'allspark_mmseg/__init__.py' in paths
    problems = []
    for path in paths:
        for number, line in enumerate((ROOT / path).read_text(encoding='utf-8').splitlines(), start=1):
            problems += [f'{path}:{number}: {match[0]}' for match in BRITISH.finditer(line)]
    assert not problems, report(problems)


def test_the_rules_themselves():
    for text in ('of shape (N, C, H, W)', 'a (K,) map', '(1, 1 + P, C)', '(N, C, ceil(H / s), W / 14)'):
        assert states_shapes(text, ['Tensor']), text
    assert states_shapes('Scalar loss.', ['Tensor']) and states_shapes('A state dict.', ['dict[str, Tensor]'])
    for text in (
        'Compute the loss.',
        'the size (see above)',
        'call f(x)',
        '(first, then the others)',
        'A state dict.',
    ):
        assert not states_shapes(text, ['Tensor', 'dict[str, Tensor]']), text
    assert BRITISH.search('the grey level') and not BRITISH.search('the gray level')
    assert unannotated(lambda x: x) == ['x', 'return']
