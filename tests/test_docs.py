"""Guides, the site that is made of them, and what they quote."""

import ast
import re
import subprocess
import sys

import pytest
from helpers import ROOT


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
    """mkdocs warns of links and anchors that lead nowhere, and --strict makes warnings errors."""
    pytest.importorskip('mkdocs', reason='mkdocs is not installed (requirements/docs.txt)')
    pytest.importorskip('mkdocstrings_handlers.python', reason='mkdocstrings-python is not installed')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', tmp_path / 'site']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / 'site/api/models.html').read_text()
    assert 'mmconvmae.models.ConvViT' in page and 'global_attn_indexes' in page
