import re
import subprocess
import sys

import pytest


@pytest.fixture
def trained(digits_config, run_tool, tmp_path):
    """A config, the checkpoint of its training, and the accuracy that training printed."""
    config = digits_config('10-per-class')
    result = run_tool('train.py', config, '--work-dir', tmp_path / 'work')
    assert result.returncode == 0, result.stderr
    (accuracy,) = re.findall(r'Epoch\(val\) \[2\].*accuracy/top1: ([\d.]+)', result.stdout)
    return config, (tmp_path / 'work' / 'last_checkpoint').read_text(), accuracy


def test_prints_the_accuracy_of_training(trained, run_tool, tmp_path):
    config, checkpoint, accuracy = trained
    ours = run_tool('test.py', config, checkpoint, '--work-dir', tmp_path / 'test')
    assert re.findall(r'Epoch\(test\).*accuracy/top1: ([\d.]+)', ours.stdout) == [accuracy], ours.stderr
    command = [sys.executable, '-m', 'mim', 'test', 'mmpretrain', config, '--checkpoint', checkpoint]
    through_mim = subprocess.run(
        [*command, '--work-dir', tmp_path / 'mim'], capture_output=True, text=True, cwd=tmp_path
    )
    assert re.findall(r'Epoch\(test\).*accuracy/top1: ([\d.]+)', through_mim.stdout) == [accuracy], through_mim.stderr


def test_checkpoint_that_is_not_there(digits_config, run_tool, tmp_path):
    config = digits_config('10-per-class')
    result = run_tool('test.py', config, tmp_path / 'missing.pth', '--work-dir', tmp_path / 'test')
    assert result.returncode != 0
    assert 'There is no checkpoint' in result.stderr and 'missing.pth; check the path' in result.stderr
