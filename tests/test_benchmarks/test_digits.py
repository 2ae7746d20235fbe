import json

import pytest
from helpers import run_script


@pytest.fixture(autouse=True)
def digits_in_data(digits, tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'digits').symlink_to(digits)
    monkeypatch.chdir(tmp_path)


def test_one_seed_of_the_table(tmp_path):
    options = ['train_cfg.max_epochs=1', 'param_scheduler=None', 'train_dataloader.dataset.indices=8']
    command = ('benchmarks/digits.py', '--seeds', 1, '--out', 'runs', '--cfg-options', *options)
    result = run_script(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = result.stdout.splitlines()[-3:]
    results = json.loads((tmp_path / 'runs' / 'results.json').read_text())
    for row, (name, by_start) in zip(rows, results.items()):
        cells = [cell.strip() for cell in row.strip('|').split('|')]
        assert cells == [name, *(f'{by_start[start][0]:.1f} ± 0.0' for start in ('random', 'pretrained'))]
    # What was done is not done again.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob('runs/*/*/log.txt')}
    assert len(before) == 7
    assert run_script(*command).stdout.splitlines()[-3:] == rows
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_failed_run(tmp_path):
    result = run_script('benchmarks/digits.py', '--cfg-options', 'model.backbone.arch=giant')
    assert result.returncode == 1
    assert 'Error: train.py' in result.stderr and "`arch` is 'giant'" in result.stderr
    assert not list(tmp_path.glob('work_dirs/digits/*/*/*log.txt*'))
