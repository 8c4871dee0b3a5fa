"""Griffe extension: shows the reStructuredText of docstrings as Markdown on the API pages."""

import re
import textwrap
from typing import Any

import griffe

_DIRECTIVE = re.compile(
    r'^(?P<indent> *)\.\. (?P<name>code-block|math)::(?P<argument>.*)\n'
    r'(?P<body>(?:(?P=indent) +.*\n?|\s*\n)+)',
    re.MULTILINE,
)
_ROLE = re.compile(r':\w+:`(?P<text>[^`]+)`')


class MarkdownDocstrings(griffe.Extension):
    """Converts the docstring of each object."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **kwargs: Any) -> None:
        """Convert the docstring of an object when it is loaded."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Turn ``code-block`` and ``math`` directives into fenced blocks, and roles into code."""
    text = _DIRECTIVE.sub(_fence, text)
    return re.sub(r'::$', ':', _ROLE.sub(r'`\g<text>`', text), flags=re.MULTILINE)


def _fence(match: re.Match) -> str:
    language = {'code-block': match['argument'].strip() or 'text', 'math': 'latex'}[match['name']]
    block = f'```{language}\n{textwrap.dedent(match["body"]).strip()}\n```\n\n'
    return textwrap.indent(block, match['indent'])
