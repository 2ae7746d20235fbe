"""Pages of the documentation site whose text lies elsewhere: README, files outside of docs/, docstrings, the notebook.

mkdocs.yml names this file as its hook, and for docstrings as an extension. A link is written as it has to be in the
repository; on the site it leads to the page of the same file.
"""

import ast
import json
import os
import re
from pathlib import Path, PurePosixPath

from griffe import Extension
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
# Sections of README that are a page of their own; the others are the home page.
GETTING_STARTED = (
    'Install',
    'Pretrain on your images',
    'Look at it',
    'Train a model from it',
    "The authors' checkpoints",
)
# Code stays as it is; what follows a bracket is a link to a file of the repository, and perhaps to a heading.
LINK = re.compile(r'```.*?```|`[^`\n]*`|(?<=\]\()(?!\w+:|#)(?P<name>[^)\s#]+)', flags=re.DOTALL)
WIDE = ('architecture.md', 'model_zoo.md')  # they have the place of the table of contents too
LANGUAGES = {'.md': 'markdown', '.py': 'python', '.sh': 'bash', '.yml': 'yaml', '.toml': 'toml'}


def on_files(files, config):
    """Add the pages, and one with the code of each file that a page links to."""
    texts = {'index.md': ('README.md', _readme()[0]), 'getting_started.md': ('README.md', _readme()[1])}
    texts['walkthrough.md'] = ('docs/walkthrough.ipynb', _notebook(ROOT / 'docs/walkthrough.ipynb'))
    for uri in _uris(config.nav):
        if (ROOT / uri).exists():
            texts[uri] = (uri, (ROOT / uri).read_text())
        elif uri.startswith('api/'):
            texts[uri] = (uri, _api(PurePosixPath(uri).stem))
    for file in files.documentation_pages():
        texts[file.src_uri] = (f'docs/{file.src_uri}', file.content_string)
    missing = {}
    for uri, (path, text) in texts.items():
        text = LINK.sub(lambda match: _to_page(match, path, uri, texts, missing), text)  # noqa: B023
        if uri in files.src_uris:
            files.remove(files.src_uris[uri])
        files.append(File.generated(config, uri, content=re.sub(r'<!--.*?-->\n', '', text)))
    for path, uri in missing.items():
        language = LANGUAGES.get(Path(path).suffix, 'text')
        # A fence longer than those that the file may have.
        text = f'# {path}\n\n`````{language}\n{(ROOT / path).read_text()}`````\n'
        files.append(File.generated(config, uri, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri in WIDE:
        page.meta['hide'] = ['toc']


def _uris(nav):
    """All pages of the navigation."""
    if isinstance(nav, str):
        return [nav]
    return [uri for entry in (nav.values() if isinstance(nav, dict) else nav) for uri in _uris(entry)]


def _to_page(match, path, uri, texts, missing):
    """The link from a page to a file of the repository; files without a page are added to the missing ones."""
    if match['name'] is None:
        return match[0]
    target = os.path.normpath(PurePosixPath(path).parent / match['name'])
    if not (ROOT / target).is_file():
        raise PluginError(f'{path} links to {match["name"]}, which is no file; link to a file.')
    page = {'README.md': 'index.md', 'docs/walkthrough.ipynb': 'walkthrough.md'}.get(target, target)
    page = page.removeprefix('docs/')
    if page not in texts and Path(page).suffix != '.png':
        page = missing.setdefault(target, f'{target}.md')
    return os.path.relpath(page, PurePosixPath(uri).parent)


def _readme():
    """README as the home page and the page of getting started."""
    first, *others = re.split(r'(?m)^(?=## )', (ROOT / 'README.md').read_text())
    sections = {re.match('## (.*)', section)[1]: section for section in others}
    steps = [sections.pop(title) for title in GETTING_STARTED]
    return first + ''.join(sections.values()), '# Getting started\n\n' + ''.join(steps)


def _notebook(path):
    """A notebook as Markdown, its code cells as blocks."""
    return '\n\n'.join(
        f'```python\n{"".join(cell["source"])}\n```' if cell['cell_type'] == 'code' else ''.join(cell['source'])
        for cell in json.loads(path.read_text())['cells']
    )


def _api(name):
    """The page of a module, or of what a package exports."""
    path = ROOT / 'mmconvmae' / name / '__init__.py'
    title = f'# mmconvmae.{name}\n\n'
    if not path.exists():
        return f'{title}::: mmconvmae.{name}\n    options:\n      show_root_heading: false\n'
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '__all__':
            return title + '\n'.join(f'::: mmconvmae.{name}.{export}' for export in ast.literal_eval(node.value))
    raise PluginError(f'mmconvmae.{name} has no `__all__`; write one, or take its page out of mkdocs.yml.')


class Markdown(Extension):
    """Docstrings have roles and links of reStructuredText, and the site is Markdown."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            text = re.sub(r':\w+:`~?([^`]*)`', r'`\1`', obj.docstring.value)
            obj.docstring.value = re.sub(r'`([^`<]*?)\s*<(https?://[^>]*)>`_', r'[\1](\2)', text)
