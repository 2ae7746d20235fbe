import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers import CONFIGS, ROOT

import mmconvmae


def run_python(code, **kwargs):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, **kwargs)


def test_import_brings_no_other_library():
    """Also without mmcv's compiled ops, which are kept from being imported here."""
    result = run_python(
        'import sys\n'
        "sys.modules['mmcv._ext'] = None\n"
        'import mmconvmae\n'
        "assert not {'mmdet', 'mmseg', 'mmcv.ops', 'mmconvmae.models'} & set(sys.modules)\n"
        'from mmengine.registry import MODELS\n'
        "MODELS.build(dict(type='mmconvmae.ConvViT', arch='tiny'))\n"
        "assert 'mmseg' not in sys.modules\n"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('library', ['mmengine', 'mmcv', 'mmpretrain'])
def test_import_with_an_old_library(library):
    result = run_python(f"import {library}\n{library}.__version__ = '0.1.0'\nimport mmconvmae\n")
    assert f'ImportError: mmconvmae needs {library}' in result.stderr
    assert 'or later, and 0.1.0 is installed; upgrade it.' in result.stderr


def test_mmpretrain_knows_our_models():
    import mmpretrain

    names = mmpretrain.list_models()
    assert {name for name in CONFIGS if name.startswith(('convmae_', 'convvit-'))} <= set(names)
    model = mmpretrain.get_model('convmae_convvit-small-p16_8xb256-amp-coslr-200e_in1k')
    assert type(model).__name__ == 'ConvMAE'


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """A source distribution and the wheel built from it."""
    source = tmp_path_factory.mktemp('source')
    files = subprocess.check_output(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, text=True).split('\n')
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, '-m', 'build', '--no-isolation', source], check=True, capture_output=True)
    return next((source / 'dist').glob('*.tar.gz')), next((source / 'dist').glob('*.whl'))


MIM_FILES = ('model-index.yml', 'tools/train.py', 'configs/convmae/metafile.yml', 'configs/_base_/convmae_runtime.py')


def test_distributions_bring_configs_and_tools(distributions):
    sdist, wheel = distributions
    names = {name.split('/', 1)[1] for name in tarfile.open(sdist).getnames() if '/' in name}
    benchmarks = {path.name for path in (ROOT / 'benchmarks').glob('*.*')}
    assert {
        *MIM_FILES,
        'LICENSE',
        'mkdocs.yml',
        'docs/site_pages.py',
        'requirements/runtime.txt',
        *(f'benchmarks/{name}' for name in benchmarks),
    } <= names
    names = zipfile.ZipFile(wheel).namelist()
    assert {f'mmconvmae/.mim/{name}' for name in MIM_FILES} <= set(names)
    assert not benchmarks & {Path(name).name for name in names}  # they are for maintainers


def test_metadata(distributions):
    wheel = zipfile.ZipFile(distributions[1])
    (name,) = (name for name in wheel.namelist() if name.endswith('.dist-info/METADATA'))
    metadata = email.message_from_bytes(wheel.read(name))
    assert (metadata['Name'], metadata['Version']) == ('mmconvmae', mmconvmae.__version__)
    assert metadata['License-Expression'] == 'Apache-2.0' and metadata['Requires-Python'] == '>=3.10'
    assert metadata['Description-Content-Type'] == 'text/markdown'
    assert metadata.get_payload(decode=True).decode() == (ROOT / 'README.md').read_text()
    extras = {'deployment', 'detection', 'dev', 'docs', 'pretraining', 'segmentation'}
    assert set(metadata.get_all('Provides-Extra')) == extras


def test_version_is_the_same_everywhere():
    (cited,) = re.findall(r'(?m)^version: (.*)$', (ROOT / 'CITATION.cff').read_text())
    newest = re.findall(r'(?m)^## \[(.*?)\]', (ROOT / 'CHANGELOG.md').read_text())[0]
    assert cited == newest == mmconvmae.__version__


def test_mim_finds_a_config_of_the_wheel_by_its_name(distributions, tmp_path):
    """`mim train mmconvmae NAME.py`, up to the command that it runs."""
    packages = tmp_path / 'packages'
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', packages, distributions[1]], check=True
    )
    name = 'convmae_convvit-base-p16_8xb256-amp-coslr-200e_in1k.py'
    # The stand-in for the training script tells what it is called with.
    for script in packages.rglob('tools/train.py'):
        script.write_text('import sys; print("trains", *sys.argv[1:])')
    result = subprocess.run(
        [sys.executable, '-m', 'mim', 'train', 'mmconvmae', name, '--gpus', '0'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(PYTHONPATH=str(packages), PATH='/usr/bin:/bin', HOME=str(tmp_path)),
    )
    assert 'Training finished successfully' in result.stdout, result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith('trains')]
    assert Path(line.split()[1]).name == name
