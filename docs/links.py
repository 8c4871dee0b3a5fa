"""Links of the documentation: to a line of code, and to files outside ``docs``. Needs no MkDocs.

In a page, ``{{ code PATH "TEXT" }}`` stands for a link to the only line of PATH that contains TEXT. All other
links are relative, as on GitHub. The site has a page for each file of the repository that a page links to.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r'\{\{ code (?P<path>\S+) "(?P<text>[^"]+)" \}\}')
LINK = re.compile(r'(?<=\]\()(?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))')
_FENCED = re.compile(r'^```.*?^```$', re.MULTILINE | re.DOTALL)


def find_line(path: str, text: str) -> int:
    """Return the number of the only line of a file that contains a text.

    Raises:
        ValueError: The file does not exist, or no line or several lines contain the text.
    """
    if not (ROOT / path).is_file():
        raise ValueError(f'{path}: no such file, expected a file of the repository.')
    lines = (ROOT / path).read_text().splitlines()
    numbers = [number for number, line in enumerate(lines, start=1) if text in line]
    if len(numbers) != 1:
        raise ValueError(f"{path}: {len(numbers)} lines contain '{text}', expected one.")
    return numbers[0]


def resolve(target: str, source: str) -> str:
    """Return the path, relative to the repository, that a relative link in the file ``source`` points to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def linked_files(source: str, text: str) -> Iterator[str]:
    """Yield the files outside ``docs`` that the page ``source`` with the Markdown ``text`` links to."""
    targets = [match['path'] for match in CODE.finditer(text)]
    targets += [resolve(match['target'], source) for match in LINK.finditer(_FENCED.sub('', text))]
    for path in targets:
        if not path.startswith('..') and not _is_in_docs(path) and (ROOT / path).is_file():
            yield path


def site_page(path: str) -> str:
    """Return the page of the site, relative to ``docs``, that shows a file of the repository."""
    if _is_in_docs(path):
        return path.removeprefix('docs/')
    return f'source/{path}' if path.endswith('.md') else f'source/{path}.md'


def _is_in_docs(path: str) -> bool:
    """Whether MkDocs itself puts a file on the site; mkdocs.yml leaves out the Python files of docs."""
    return path.startswith('docs/') and not path.endswith('.py')


def rewrite_links(text: str, source: str, page: str) -> str:
    """Point the links of a page to pages of the site.

    Args:
        text (str): Markdown of the page.
        source (str): File with this Markdown, relative to the repository.
        page (str): The page, relative to ``docs``.

    Returns:
        str: Markdown whose links are relative to ``page``.
    """

    def relative(path: str) -> str:
        return posixpath.relpath(site_page(path), posixpath.dirname(page))

    def code_link(match: re.Match) -> str:
        number = find_line(match['path'], match['text'])
        name = posixpath.basename(match['path'])
        return f'[`{name}:{number}`]({relative(match["path"])}#__codelineno-0-{number})'

    def link(match: re.Match) -> str:
        path = resolve(match['target'], source)
        exists = (ROOT / path).is_file() and not path.startswith('..')
        return relative(path) + (match['anchor'] or '') if exists else match[0]

    parts = re.split(f'({_FENCED.pattern})', text, flags=_FENCED.flags)
    return ''.join(
        part if part.startswith('```') else CODE.sub(code_link, LINK.sub(link, part)) for part in parts
    )
