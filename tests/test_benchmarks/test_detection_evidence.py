"""Runs on tiny images from both starts, their tables, and going on after an interruption."""

import json
import re

import numpy as np
import pytest
import torch
from helpers import ROOT, import_script, require, run_main
from PIL import Image

from mmconvmae.registry import MODELS

require('mmdet')


@pytest.fixture
def detection(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks' / 'evidence')
    return import_script('benchmarks/evidence/detection.py')


@pytest.fixture
def data(tmp_path):
    """Images with a bright rectangle in each, of two classes by turns."""
    generator = np.random.default_rng(0)
    root = tmp_path / 'animals'
    (root / 'annotations').mkdir(parents=True)
    for part, number in (('train', 4), ('val', 2), ('test', 3)):
        (root / part).mkdir()
        images, annotations = [], []
        for index in range(number):
            image = (generator.random((48, 64, 3)) * 100).astype(np.uint8)
            image[10:40, 8:44] = 250
            Image.fromarray(image).save(root / part / f'{index}.jpg')
            images.append(dict(id=index, file_name=f'{index}.jpg', width=64, height=48))
            annotation = dict(id=index + 1, image_id=index, category_id=1 + index % 2, iscrowd=0, area=1080)
            annotation.update(bbox=[8, 10, 36, 30], segmentation=[[8, 10, 44, 10, 44, 40, 8, 40]])
            annotations.append(annotation)
        categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{part}.json').write_text(json.dumps(content))
    return root


def test_runs_table_and_curves(detection, data, tmp_path, monkeypatch, capsys):
    weights, out = tmp_path / 'weights', tmp_path / 'out'
    args = (data, '--weights', weights, '--seeds', 0, '--image-size', 64, '--batch-size', 2, '--workers', 0)
    args += ('--val-interval', 2, '--out', out)
    error = run_main(detection, monkeypatch, *args, '--epochs', 3)
    assert f'there is no file {weights / "paper_seed0.pth"}' in error and not out.exists()
    weights.mkdir()
    backbone = MODELS.build(dict(type='mmconvmae.ConvMAEViT', arch='tiny', img_size=96))
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    torch.save(dict(state_dict=state), weights / 'paper_seed0.pth')

    # The first run ends where validation fails, as if it had been interrupted after the last epoch.
    finished = detection.CurveHook.after_val_epoch

    def interrupted(self, runner, metrics):
        if runner.epoch == 3:
            raise KeyboardInterrupt
        finished(self, runner, metrics)

    monkeypatch.setattr(detection.CurveHook, 'after_val_epoch', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_main(detection, monkeypatch, *args, '--epochs', 3)
    monkeypatch.setattr(detection.CurveHook, 'after_val_epoch', finished)
    assert not list(out.glob('cells/*'))
    # What was begun does not go on with other settings.
    begun = (out / 'configs' / 'random_seed0.py').read_text()
    error = run_main(detection, monkeypatch, *args, '--epochs', 3, '--base-lr', 0.1)
    assert 'was begun with other settings' in error
    assert (out / 'configs' / 'random_seed0.py').read_text() == begun
    assert run_main(detection, monkeypatch, *args, '--epochs', 3) is None
    cells = {path.stem: json.loads(path.read_text()) for path in out.glob('cells/*')}
    assert set(cells) == {'random_seed0', 'paper_seed0'}
    for cell in cells.values():
        assert [point['epoch'] for point in cell['curve']] == [2, 3]
        assert all(0 <= figure <= 100 for part in ('val', 'test') for figure in cell[part].values())
    assert 'checkpoint = None' in (out / 'configs' / 'random_seed0.py').read_text()
    trained = torch.load(out / 'runs' / 'paper_seed0' / 'epoch_3.pth', weights_only=False)['state_dict']
    other = torch.load(out / 'runs' / 'random_seed0' / 'epoch_3.pth', weights_only=False)['state_dict']
    name = 'backbone.stages.2.blocks.0.ffn.layers.1.weight'
    assert torch.dist(trained[name], state[name]) < 0.1 * torch.dist(other[name], state[name])
    text = capsys.readouterr().out
    assert '| animals6 test, mask AP | ' in text and '|  | random weights | pretrained |' in text
    assert (out / 'results.png').stat().st_size > 0

    before = {path: path.stat().st_mtime_ns for path in out.glob('cells/*')}
    assert run_main(detection, monkeypatch, *args, '--epochs', 3) is None
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 2
    assert 'give those, or another --out' in run_main(detection, monkeypatch, *args, '--epochs', 4)


def test_docs_have_the_table_of_the_stored_runs(detection):
    cells = detection.load_cells(ROOT / 'benchmarks' / 'evidence' / 'results' / 'detection')
    assert len(cells) == 4
    assert detection.format_table(cells) in (ROOT / 'docs' / 'evidence.md').read_text(encoding='utf-8')


def test_readme_has_the_figures_of_the_stored_runs(detection):
    stored = ROOT / 'benchmarks' / 'evidence' / 'results'
    starts = [
        (stored / folder / 'results.md').read_text().split('\n\n')[1] for folder in ('', 'kernels', 'segmentation')
    ]
    starts.append(detection.format_table(detection.load_cells(stored / 'detection')))
    rows = {
        'flowers5, linear probe': ('linear probe, %', 'k-NN, %'),
        'flowers5, finetuning': ('finetuning, a tenth of the labels, %', 'finetuning, all labels, %'),
        'camvid11': ('camvid11 validation, mIoU', 'camvid11 test, mIoU'),
        'animals6': ('animals6 test, box AP', 'animals6 test, mask AP'),
    }
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    for (data, names), table in zip(rows.items(), starts, strict=True):
        found = {name.strip(): figures for name, *figures in (row.split('|')[1:-1] for row in table.splitlines())}
        columns = [re.escape(', '.join(found[name][start].strip() for name in names)) for start in (0, 1)]
        assert re.search(rf'(?m)^\| {data}, .* \| {columns[0]} \| {columns[1]} \|$', readme), data


def test_figures_are_those_of_the_parts(detection):
    """Mean and deviation over seeds, of val and test apart."""
    cells = [
        dict(start='random', seed=seed, val=dict(bbox=1 + seed, segm=2), test=dict(bbox=3, segm=4 + 2 * seed))
        for seed in (0, 1)
    ]
    rows = detection.format_table(cells).splitlines()[2:]
    assert [row.split('|')[2].strip() for row in rows] == ['1.5 ± 0.7', '2.0 ± 0.0', '3.0 ± 0.0', '5.0 ± 1.4']
