"""Crops on the device against cutting and resizing, and one run of everything on tiny images."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, import_script, require, run_script
from PIL import Image


@pytest.fixture(scope='module')
def images():
    return import_script('benchmarks/evidence/images.py')


@pytest.fixture(scope='module')
def tables():
    return import_script('benchmarks/evidence/tables.py')


def test_centre_is_the_middle_square(images, tmp_path):
    """A smooth image: what sampling gives is the picture itself at the places of the pixels."""
    height, width, size = 60, 120, 32
    rows, columns = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([255 * rows / height, 255 * columns / width, np.full_like(rows, 7)], -1)
    Image.fromarray(pixels.round().astype(np.uint8)).save(tmp_path / 'a.png')
    canvases = images.load_canvases([tmp_path / 'a.png'], 96, 'cpu')
    crop = images.centre(canvases, size)[0]
    crop = crop * torch.tensor(images.STD)[:, None, None] + torch.tensor(images.MEAN)[:, None, None]
    at = (torch.arange(size) + 0.5) / size
    assert (crop[0] - 255 * at[:, None]).abs().max() < 3
    assert (crop[1] - 255 * (0.25 + 0.5 * at)).abs().max() < 3  # the middle half of a width that is twice the height


def test_random_crops_cover_what_is_asked(images):
    torch.manual_seed(0)
    ratios = torch.full((4000,), 1.5)
    grid = images.random_grid(ratios, 8, (0.2, 1.0), 4 / 3)
    low, high = grid.flatten(1, 2).amin(1), grid.flatten(1, 2).amax(1)
    width, height = ((high - low) * 8 / 7 / 2).unbind(1)  # of the canvas; the outer pixels are half a pixel inside
    assert low.min() > -1 and high.max() < 1
    share = width * height
    assert share.min() > 0.19 and share.max() < 1.01 and abs(share.mean() - 0.6) < 0.05
    aspect = width * 1.5 / height
    assert aspect.min() > 0.74 and aspect.max() < 1.51  # cut to the image where it does not fit
    flipped = (grid[:, 0, 0, 0] > grid[:, 0, -1, 0]).float().mean()
    assert abs(flipped - 0.5) < 0.05


def test_verdict(tables):
    assert tables.verdict([1.0, 1.2, 0.8], 3.1) == 'the same'
    assert tables.verdict([-1.0, -1.2, -0.8], 3.1) == 'other'
    assert tables.verdict([1.0, -1.2, 0.8], 3.1) == 'not to be told'


def test_cells_that_were_made_differently_do_not_mix(tables, tmp_path):
    def save(variant, seed, rate, steps):
        cell = dict(variant=variant, seed=seed, finetuning_lr=rate, settings=dict(steps=steps))
        path = tmp_path / 'cells' / f'{variant}_seed{seed}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(cell))
        return path

    save('random', 0, 3e-4, 4)
    save('paper', 0, 1e-3, 4)
    assert {variant: list(seeds) for variant, seeds in tables.load_cells(tmp_path).items()} == dict(
        paper=[0], random=[0]
    )
    other = save('random', 1, 1e-3, 4)
    with pytest.raises(ValueError, match=r'finetuned at \[0\.0003, 0\.001\]'):
        tables.load_cells(tmp_path)
    other.unlink()
    save('paper', 1, 1e-3, 5)
    with pytest.raises(ValueError, match=r'paper_seed1\.json has the settings'):
        tables.load_cells(tmp_path)


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)

    def save(path, label=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        pixels[..., label] += 150
        Image.fromarray(pixels).save(path)

    for part, number in (('train', 12), ('val', 4)):
        for label in range(3):
            for n in range(number):
                save(tmp_path / 'flowers5' / part / f'class{label}' / f'{n}.jpg', label)
    for part in ('training', 'validation', 'test'):
        for n in range(2):
            save(tmp_path / 'camvid11' / 'images' / part / f'{n}.jpg')
            mask = tmp_path / 'camvid11' / 'annotations' / part / f'{n}.png'
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 12, (48, 64), dtype=np.uint8)).save(mask)
    save(tmp_path / 'animals6' / 'train' / '0.jpg')
    return tmp_path


def test_run(data, tmp_path):
    require('mmseg')
    out = tmp_path / 'out'
    options = (
        '--size',
        '64',
        '--steps',
        '2',
        '--batch-size',
        '4',
        '--finetuning-epochs',
        '2',
        '--finetuning-steps',
        '2',
    )
    options += ('--segmentation-steps', '2', '--device', 'cpu', '--more-images', 'animals6/train', '--out', out)
    args = (data, '--variants', 'random', 'paper', 'unmasked-conv', 'single-scale', '--seeds', '0', *options)
    result = run_script('benchmarks/evidence/evidence.py', *args)
    assert result.returncode == 0, result.stderr
    cells = {path.stem: json.loads(path.read_text()) for path in (out / 'cells').iterdir()}
    assert set(cells) == {f'{name}_seed0' for name in ('random', 'paper', 'unmasked-conv', 'single-scale')}
    for name, cell in cells.items():
        assert 0 <= cell['finetuning'] <= 100 and cell['probe'] > 90  # colours can be told apart by anything
        assert ('miou_test' in cell) == name.startswith(('random', 'paper'))
        steps = [step for step, _ in cell['finetuning_tenth_curve']]
        assert steps == [1, 2] and cell['finetuning_tenth_curve'][-1][1] == cell['finetuning_tenth']
    assert cells['paper_seed0']['segmentation_curve'][-1] == [2, cells['paper_seed0']['miou_validation']]
    assert (out / 'curves.png').stat().st_size > 0
    weights = torch.load(out / 'weights' / 'paper_seed0.pth', weights_only=True)['state_dict']
    assert weights['backbone.stages.0.patch_embed.projection.weight'].shape[1] == 3
    text = (out / 'results.md').read_text()
    assert '| masked over unmasked convolution | +3.1 |' in text and 'one seed' in text

    # What is there is not done again.
    before = {path: path.stat().st_mtime_ns for path in out.glob('cells/*')}
    assert run_script('benchmarks/evidence/evidence.py', *args).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.glob('cells/*')}


def test_mean_iou_against_counting(images, monkeypatch):
    """Of a model that says the label back, moved by a column: intersections and unions counted one by one."""
    monkeypatch.syspath_prepend(ROOT / 'benchmarks' / 'evidence')
    evidence = import_script('benchmarks/evidence/evidence.py')
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (2, 1, 32, 48), dtype=torch.uint8)
    labels[labels == 3] = 255
    said = labels.roll(1, 3).long().clamp(max=2)[:, 0]
    cell = evidence.Cell('random', 0, None, Namespace(arch='tiny', size=16, device='cpu'))
    streets = images.Canvases(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.full((2,), 1.5), labels)
    model = dict(backbone=lambda x: x, neck=lambda x: x, head=lambda x: F.one_hot(said, 3).permute(0, 3, 1, 2).float())
    expected = []
    for label in range(3):
        here, found = labels[:, 0] == label, (said == label) & (labels[:, 0] != 255)
        expected.append(((here & found).sum() / (here | found).sum()).item())
    assert cell.mean_iou(model, streets, 3) == pytest.approx(100 * np.mean(expected))
