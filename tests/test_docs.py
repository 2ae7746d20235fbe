"""Guides, the site that is made of them, and what they quote."""

import ast
import doctest
import json
import re
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT, import_script, run_main
from mmengine.config import Config
from mmengine.registry import RUNNERS

from mmconvmae import models


def sentences_of_the_code():
    """Every text in the code, with ... for what is put into it."""
    for path in [*ROOT.glob('mmconvmae/**/*.py'), *ROOT.glob('tools/**/*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield ''.join(part.value if isinstance(part, ast.Constant) else '…' for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_sentences_of_troubleshooting_are_those_of_the_code():
    quoted = re.findall(r'(?m)^> (.*)$', (ROOT / 'docs/troubleshooting.md').read_text())
    code = '\n'.join(sentences_of_the_code())
    assert len(quoted) > 20 and not [sentence for sentence in quoted if sentence not in code]


def test_site_builds_and_has_no_dead_link(tmp_path):
    """mkdocs warns of links and anchors to nowhere; --strict makes warnings errors, unless --quiet hides them."""
    pytest.importorskip('mkdocs', reason='mkdocs is not installed (requirements/docs.txt)')
    pytest.importorskip('mkdocstrings_handlers.python', reason='mkdocstrings-python is not installed')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', tmp_path / 'site']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / 'site/api/models.html').read_text()
    assert 'mmconvmae.models.ConvViT' in page and 'global_attn_indexes' in page


NOTEBOOK = json.loads((ROOT / 'docs/walkthrough.ipynb').read_text())


def test_notebook_has_no_outputs():
    cells = [cell for cell in NOTEBOOK['cells'] if cell['cell_type'] == 'code']
    assert cells and all(cell['outputs'] == [] and cell['execution_count'] is None for cell in cells)


def test_walkthrough(tmp_path, monkeypatch):
    """Its cells in their order, an epoch of each run; commands run in this process, which saves starting Python."""
    monkeypatch.chdir(ROOT)
    for name, value in dict(EPOCHS=1, FINETUNING_EPOCHS=1, FOLDER=tmp_path).items():
        monkeypatch.setenv(f'WALKTHROUGH_{name}', str(value))

    def run(command):
        program, *args = shlex.split(command)
        if program == 'python':
            script = import_script(args[0])
            monkeypatch.setitem(sys.modules, script.__name__, script)  # where its processes look for it
            assert not run_main(script, monkeypatch, *args[1:])
        else:
            assert args[:2] == ['train', 'mmpretrain'] and args[3] == '--work-dir'
            config = Config.fromfile(args[2])
            config.work_dir = args[4]
            RUNNERS.build(config).train()

    variables = {}
    for cell in NOTEBOOK['cells']:
        if cell['cell_type'] == 'code':
            exec(compile(''.join(cell['source']), 'walkthrough', 'exec'), variables)
            variables['run'] = run
    assert (tmp_path / 'reconstruction.png').exists()
    assert variables['features'].shape == (360, 192)
    assert set(variables['accuracy']) == {'pretrained', 'random'}


@pytest.mark.parametrize('name', [name for name in models.__all__ if '>>> ' in getattr(models, name).__doc__])
def test_examples_of_docstrings(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(models, name), name)
    assert not doctest.DocTestRunner().run(test).failed
