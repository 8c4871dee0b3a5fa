"""MkDocs hooks: pages of the source code, and links to the line that implements an equation.

In a page, ``{{ code PATH "TEXT" }}`` becomes a link to the only line of PATH that contains TEXT. The build fails if no
line or several lines contain it, so that a link never points to the wrong place.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_CODE = re.compile(r'\{\{ code (?P<path>\S+) "(?P<text>[^"]+)" \}\}')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each module of the package."""
    for path in sorted((ROOT / 'allspark_mmseg').rglob('*.py')):
        name = path.relative_to(ROOT).as_posix()
        content = f'# {name}\n\n~~~~python linenums="1"\n{path.read_text()}\n~~~~\n'
        files.append(File.generated(config, _source_page(name), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the links to lines of code."""

    def link(match: re.Match) -> str:
        path, text = match['path'], match['text']
        target = posixpath.relpath(_source_page(path), posixpath.dirname(page.file.src_uri))
        number = find_line(path, text)
        return f'[`{posixpath.basename(path)}:{number}`]({target}#__codelineno-0-{number})'

    return _CODE.sub(link, markdown)


def find_line(path: str, text: str) -> int:
    """Return the number of the only line of a file that contains a text.

    Raises:
        PluginError: No line, or several lines, contain it.
    """
    lines = (ROOT / path).read_text().splitlines()
    numbers = [number for number, line in enumerate(lines, start=1) if text in line]
    if len(numbers) != 1:
        raise PluginError(f"{path}: {len(numbers)} lines contain '{text}', expected one.")
    return numbers[0]


def _source_page(path: str) -> str:
    return f'source/{path.removesuffix(".py")}.md'
