"""MkDocs hooks: resolve the links of ``links.py``, and add a page for each linked file of the repository."""

from links import ROOT, linked_files, rewrite_links, site_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yml': 'yaml', '.toml': 'toml', '.cff': 'yaml'}
# page of the site -> file of the repository that it shows
_shown: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside ``docs`` that a page links to."""
    _shown.clear()
    pending = [(f'docs/{file.src_uri}', file.content_string) for file in files.documentation_pages()]
    while pending:
        for path in linked_files(*pending.pop()):
            page, text = site_page(path), (ROOT / path).read_text()
            if page not in _shown:
                _shown[page] = path
                files.append(File.generated(config, page, content=_to_markdown(path, text)))
                pending += [(path, text)] if path.endswith('.md') else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to pages of the site."""
    source = _shown.get(page.file.src_uri, f'docs/{page.file.src_uri}')
    if not source.endswith('.md'):
        page.meta['search'] = {'exclude': True}
        return markdown
    try:
        return rewrite_links(markdown, source, page.file.src_uri)
    except ValueError as error:
        raise PluginError(f'{source}: {error}') from error


def _to_markdown(path: str, text: str) -> str:
    """Show a file as a page: Markdown unchanged, other files as numbered lines."""
    if path.endswith('.md'):
        return text
    language = _LANGUAGES.get((ROOT / path).suffix, 'text')
    return f'# {path}\n\n~~~~~{language} linenums="1"\n{text}\n~~~~~\n'
