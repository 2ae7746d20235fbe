"""Crops on the device against cutting and resizing, and one run of everything on tiny images."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers import ROOT, import_script, require, run_script
from mmpretrain.datasets.transforms import SimMIMMaskGenerator
from PIL import Image

from mmconvmae.registry import MODELS


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
    def save(variant, seed, rate, steps, decay=None):
        cell = dict(variant=variant, seed=seed, finetuning_lr=rate, settings=dict(steps=steps))
        if decay:
            cell['segmentation_layer_decay'] = decay
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
    with pytest.raises(ValueError, match=r'differ in finetuning_lr: \[0\.0003, 0\.001\]'):
        tables.load_cells(tmp_path)
    other.unlink()
    save('paper', 1, 1e-3, 4, 0.75)
    save('paper', 2, 1e-3, 4, 0.9)
    with pytest.raises(ValueError, match=r'differ in segmentation_layer_decay: \[0\.75, 0\.9\]'):
        tables.load_cells(tmp_path)
    save('paper', 1, 1e-3, 5)
    with pytest.raises(ValueError, match=r'paper_seed1\.json has the settings'):
        tables.load_cells(tmp_path)


def test_without_the_papers_form_the_baseline_of_the_ablations_is_the_pretrained_start(tables):
    cells = {
        name: {0: dict(probe=value)} for name, value in (('random', 50.0), ('single-scale', 60.0), ('paper', 70.0))
    }
    assert tables.tasks_table(cells).splitlines()[-1] == '| linear probe, % | 50.0 | 70.0 |'
    del cells['paper']
    first, _, last = tables.tasks_table(cells).splitlines()
    assert first == '|  | random weights | pretrained, single-scale decoder |' and last.endswith('| 50.0 | 60.0 |')
    del cells['random']
    assert tables.tasks_table(cells).splitlines()[-1] == '| linear probe, % | 60.0 |'


def test_docs_have_the_tables_of_the_stored_cells(tables):
    stored = ROOT / 'benchmarks' / 'evidence' / 'results'
    cells, measured = tables.load_cells(stored), json.loads((stored / 'steps.json').read_text())
    paper = yaml.safe_load((ROOT / 'benchmarks' / 'paper_tables.yml').read_text())
    text = (ROOT / 'docs' / 'evidence.md').read_text(encoding='utf-8')
    assert tables.tasks_table(cells) in text
    assert tables.rivals_table(cells, measured) in text
    assert tables.orderings_table(cells, paper) in text
    assert tables.variants_table(cells) in text
    assert tables.tasks_table(tables.load_cells(stored / 'segmentation')) in text
    kernels = tables.load_cells(stored / 'kernels')
    assert tables.tasks_table(kernels) in text and tables.orderings_table(kernels, paper) in text
    assert tables.variants_table(kernels) in text
    rivals, measured = tables.load_cells(stored / 'rivals'), json.loads((stored / 'rivals' / 'steps.json').read_text())
    assert tables.tasks_table(rivals) in text and tables.rivals_table(rivals, measured) in text


@pytest.fixture
def evidence(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks' / 'evidence')
    return import_script('benchmarks/evidence/evidence.py')


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


OPTIONS = '--size 64 --steps 2 --batch-size 4 --finetuning-epochs 2 --finetuning-steps 2 --segmentation-steps 2'
OPTIONS = (*OPTIONS.split(), '--device', 'cpu', '--more-images', 'animals6/train')


def test_run(data, tmp_path):
    require('mmseg')
    out = tmp_path / 'out'
    options = (*OPTIONS, '--out', out)
    args = (data, '--variants', 'random', 'paper', 'unmasked-conv', 'single-scale', '--seeds', '0', *options)
    result = run_script('benchmarks/evidence/evidence.py', *args, '--tasks', 'segmentation')
    assert result.returncode == 0, result.stderr
    cells = {path.stem: json.loads(path.read_text()) for path in (out / 'cells').iterdir()}
    assert set(cells) == {'random_seed0', 'paper_seed0'}  # the others have no such task
    assert not any('finetuning' in cell or 'probe' in cell for cell in cells.values())
    segmented = {name: cell['miou_test'] for name, cell in cells.items()}

    result = run_script('benchmarks/evidence/evidence.py', *args)
    assert result.returncode == 0, result.stderr
    assert 'segmentation, step' not in result.stdout and 'paper, seed 0: pretraining, step' not in result.stdout
    cells = {path.stem: json.loads(path.read_text()) for path in (out / 'cells').iterdir()}
    assert set(cells) == {f'{name}_seed0' for name in ('random', 'paper', 'unmasked-conv', 'single-scale')}
    assert {name: cells[name]['miou_test'] for name in segmented} == segmented
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

    # What is there is not done again, pretraining included, and what has other settings does not mix with it.
    before = {path: path.stat().st_mtime_ns for path in (*out.glob('cells/*'), *out.glob('weights/*'))}
    pretrained = json.loads((out / 'cells' / 'paper_seed0.json').read_text())
    (out / 'cells' / 'paper_seed0.json').unlink()
    result = run_script('benchmarks/evidence/evidence.py', *args)
    assert result.returncode == 0 and 'pretraining, step' not in result.stdout
    again = json.loads((out / 'cells' / 'paper_seed0.json').read_text())
    same = ('held_out_loss', 'probe', 'finetuning', 'miou_test')
    assert {key: again[key] for key in same} == {key: pretrained[key] for key in same}
    assert again['seconds']['pretraining'] == pretrained['seconds']['pretraining']
    assert again['made'] == pretrained['made'] and set(again['made']) == {
        'pretraining',
        'features',
        'finetuning',
        'segmentation',
    }
    assert {path for path, at in before.items() if path.stat().st_mtime_ns != at} == {
        out / 'cells' / 'paper_seed0.json'
    }
    result = run_script('benchmarks/evidence/evidence.py', *args, '--steps', '3')
    assert result.returncode == 1 and "'steps': 2" in result.stderr and 'or another --out' in result.stderr


def test_rivals(data, tmp_path):
    """Rivals take as many steps as take as long, and have figures in all tasks."""
    require('mmseg')
    out = tmp_path / 'out'
    args = (data, '--variants', 'paper', 'mae', 'spark', 'simmim', '--seeds', '0', *OPTIONS, '--out', out)
    result = run_script('benchmarks/evidence/evidence.py', *args, '--minutes', '0')
    assert result.returncode == 0, result.stderr
    assert 'Cells left for another time: 4.' in result.stdout and not (out / 'cells').exists()
    result = run_script('benchmarks/evidence/evidence.py', *args, '--minutes', '0', '--batch-size', '8')
    assert result.returncode == 1 and "was measured with {'arch': 'tiny', 'size': 64, 'batch_size': 4}" in result.stderr
    measured = json.loads((out / 'steps.json').read_text())
    measured['seconds'].update(paper=0.3, mae=0.1, spark=0.2, simmim=0.6)
    (out / 'steps.json').write_text(json.dumps(measured))
    result = run_script('benchmarks/evidence/evidence.py', *args)
    assert result.returncode == 0, result.stderr
    cells = {path.stem[:-6]: json.loads(path.read_text()) for path in (out / 'cells').iterdir()}
    assert {name: cell['pretraining_steps'] for name, cell in cells.items()} == dict(paper=2, mae=6, spark=3, simmim=1)
    for name, cell in cells.items():
        assert cell['probe'] > 90 and 0 <= cell['finetuning'] <= 100 and 0 <= cell['miou_test'] <= 100
        assert ('held_out_loss' in cell) == (name in ('paper', 'mae'))
    text = (out / 'results.md').read_text()
    assert '| MAE, ViT (mmpretrain) | 3.2' in text and ' | 100.0 | 6 | ' in text
    assert (out / 'rivals.png').stat().st_size > 0

    result = run_script('benchmarks/evidence/evidence.py', *args, '--arch', 'base')
    assert result.returncode == 1 and 'rivals need --arch tiny' in result.stderr


@pytest.mark.parametrize('variant', ['mae', 'spark', 'simmim'])
def test_tasks_begin_from_what_was_pretrained(evidence, variant):
    """All but norms of outputs and mask tokens comes from pretraining, in each task."""
    require('mmseg')
    cell = evidence.Cell(variant, 0, None, Namespace(arch='tiny', size=64, device='cpu'))
    model = MODELS.build(cell.parts.model(cell.args))
    cell.weights = {name: value + 1 for name, value in model.backbone.state_dict().items()}
    trained = sum(parameter.numel() for parameter in model.backbone.parameters())
    for settings in (cell.parts.classifier, cell.parts.featmap, cell.parts.pyramid):
        state = cell.build_backbone(settings).state_dict()
        same = [name for name, value in state.items() if name in cell.weights and value.equal(cell.weights[name])]
        assert sum(state[name].numel() for name in same) > 0.99 * trained


def test_masks_of_simmim(evidence):
    """Cells of 32 pixels, 0.6 of them, on a grid of 4 pixels, as many as mmpretrain hides."""
    torch.manual_seed(0)
    model = MODELS.build(evidence.VARIANTS['simmim'].model(Namespace(size=160)))
    masks = model.draw_masks(torch.zeros(50, 3, 160, 160))
    cells = masks[:, ::8, ::8]
    assert masks.shape == (50, 40, 40) and masks.equal(cells.repeat_interleave(8, 1).repeat_interleave(8, 2))
    assert (cells.sum((1, 2)) == 15).all() and 20 < cells.sum(0).min()
    theirs = SimMIMMaskGenerator(input_size=160, mask_patch_size=32, model_patch_size=4, mask_ratio=0.6)
    assert theirs.transform(dict(img=None))['mask'].sum() == masks[0].sum()


def test_processes_that_share_a_cell_keep_each_others_tasks(evidence, tmp_path):
    first, second = (evidence.CellFile(tmp_path, 'paper', 0, dict(size=64)) for _ in range(2))
    first.add('features', dict(probe=70.0, seconds=1.0, made='here'))
    second.add('finetuning', dict(finetuning=80.0, seconds=2.0, made='there'))
    cell = json.loads((tmp_path / 'cells' / 'paper_seed0.json').read_text())
    assert (cell['probe'], cell['finetuning'], cell['seconds']) == (70, 80, dict(features=1, finetuning=2))


def test_a_training_says_how_long_it_goes_on(evidence, capsys, monkeypatch):
    """From the time so far: 10 s a step, and 30 steps."""
    layer, taken = torch.nn.Linear(3, 1), []
    groups = [dict(params=list(layer.parameters()), peak=1.0, weight_decay=0.1)]

    def loss():
        taken.append(1)
        return layer(torch.ones(3)).sum()

    monkeypatch.setattr('training.time.perf_counter', lambda: 10 * len(taken))
    cell = evidence.Cell('paper', 1, None, Namespace())
    assert evidence.Training(groups, loss, 30, 'cpu').run(cell.say('pretraining')) == 300
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[0].startswith('paper, seed 1: pretraining, step 3, loss')
    assert lines[0].endswith('about 4 minutes left') and lines[-1].endswith('about 0 minutes left')


def test_measuring_a_step_changes_nothing(evidence):
    layer = torch.nn.Linear(3, 1)
    before, calls = layer.weight.clone(), []

    def loss():
        calls.append(1)
        return layer(torch.ones(3)).sum()

    groups = [dict(params=list(layer.parameters()), peak=1.0, weight_decay=0.1)]
    seconds = evidence.busy_seconds(evidence.Training(groups, loss, 10, 'cpu'), steps=4)
    assert 0 < seconds < 1 and len(calls) == 7 and layer.weight.equal(before)


def test_pretraining_that_diverges_is_named(data, tmp_path):
    require('mmseg')
    out = tmp_path / 'out'
    args = (data, '--variants', 'paper', 'random', '--seeds', '0', *OPTIONS, '--lr', '1e30', '--out', out)
    result = run_script('benchmarks/evidence/evidence.py', *args)
    assert result.returncode == 1 and 'pretraining diverged in paper, seed 0' in result.stderr
    assert [path.name for path in (out / 'cells').iterdir()] == ['random_seed0.json']


def test_segmentation_that_diverges_has_no_figure(evidence, data, monkeypatch, capsys):
    require('mmseg')

    def run(self, say):
        say(1, 0.7, 60.0)
        raise evidence.DivergedError('The loss is nan in step 2; lower the learning rate.')

    monkeypatch.setattr(evidence.Training, 'run', run)
    args = Namespace(arch='tiny', size=64, device='cpu', data=data, more_images=[], segmentation_steps=2)
    evidence.init_default_scope('mmpretrain')
    figures = evidence.Cell('random', 0, evidence.Data(args), args).segment()
    assert figures['miou_validation'] is None and figures['miou_test'] is None
    assert [step for step, _ in figures['segmentation_curve']] == [1]
    assert 'random, seed 0: segmentation: The loss is nan in step 2' in capsys.readouterr().out


def test_mean_iou_against_counting(images, evidence):
    """Of a model that says the label back, moved by a column: intersections and unions counted one by one."""
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
