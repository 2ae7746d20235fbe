"""Tables of finished cells."""

import json
import math
import statistics
import sys
from pathlib import Path

import matplotlib
import yaml

from mmconvmae.utils import markdown_table, write_whole

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))
from equal_seconds import CONTENDERS  # noqa: E402

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

FIGURES = {
    'probe': 'linear probe, %',
    'knn': 'k-NN, %',
    'finetuning_tenth': 'finetuning, a tenth of the labels, %',
    'finetuning': 'finetuning, all labels, %',
    'miou_validation': 'camvid11 validation, mIoU',
    'miou_test': 'camvid11 test, mIoU',
}
CURVES = {
    'finetuning_curve': 'finetuning, all labels, %',
    'finetuning_tenth_curve': 'finetuning, a tenth of the labels, %',
    'segmentation_curve': 'camvid11 validation, mIoU',
}
STARTS = {'random': 'random weights', 'paper': 'pretrained'}
BASELINE = 'single-scale'  # of the paper's table 5
RIVALS = ('mae', 'spark', 'simmim')
# What is compared with what, and the rows of the paper's tables that do: table, first row, second row, column.
ORDERINGS = (
    ('masked over unmasked convolution', BASELINE, 'unmasked-conv', (5, 0, 2)),
    ('block-wise over token-wise masks', BASELINE, 'token-mask', (5, 0, 1)),
    ('5 x 5 over 3 x 3', BASELINE, 'kernel3', (5, 0, 3)),
    ('5 x 5 over 7 x 7', BASELINE, 'kernel7', (5, 0, 4)),
    ('multi-scale over single-scale decoder', 'paper', BASELINE, (6, 1, 0)),
)


def spread(values: list[float | None]) -> str:
    """Mean and standard deviation, and how many runs diverged."""
    diverged, values = values.count(None), [value for value in values if value is not None]
    if not values:
        return f'{diverged} of {diverged} diverged' if diverged else '-'
    lost = f' ({diverged} of {diverged + len(values)} diverged)' if diverged else ''
    deviation = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{deviation}{lost}'


def load_cells(folder: Path) -> dict[str, dict[int, dict]]:
    """Read finished cells.

    Args:
        folder (Path): What was given as --out.

    Returns:
        dict[str, dict[int, dict]]: Figures by variant, then by seed.

    Raises:
        ValueError: If cells have different settings, or those of a variant different rates or layer decays.
    """
    cells, settings = {}, None
    for file in sorted((folder / 'cells').glob('*.json')):
        cell = json.loads(file.read_text())
        if settings not in (None, cell['settings']):
            raise ValueError(f'{file} has the settings {cell["settings"]}, and others {settings}; give another --out.')
        settings = cell['settings']
        seeds = cells.setdefault(cell['variant'], {})
        for key in ('finetuning_lr', 'segmentation_layer_decay'):
            found = {other[key] for other in (cell, *seeds.values()) if key in other}
            if len(found) > 1:
                raise ValueError(f'{file} and others differ in {key}: {sorted(found)}; give another --out.')
        seeds[cell['seed']] = cell
    return cells


def find_starts(cells: dict[str, dict[int, dict]]) -> dict[str, str]:
    """Random weights and pretrained ones, and their headings: of the paper's form, or of the baseline without it."""
    headings = {**STARTS, BASELINE: 'pretrained, single-scale decoder'}
    starts = ('random', 'paper' if 'paper' in cells else BASELINE)
    return {start: headings[start] for start in starts if start in cells}


def tasks_table(cells: dict[str, dict[int, dict]]) -> str:
    """What pretraining is worth in each task."""
    starts, rows = find_starts(cells), []
    for key, heading in FIGURES.items():
        values = [[cell[key] for cell in cells[start].values() if key in cell] for start in starts]
        if any(values):
            rows.append([heading, *map(spread, values)])
    return markdown_table(['', *starts.values()], rows)


def verdict(differences: list[float], expected: float) -> str:
    """Say whether differences by seed have the paper's sign: beyond two standard errors, or not to be told."""
    if len(differences) < 2:
        return 'one seed'
    mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    if abs(mean) <= 2 * error or expected == 0:
        return 'not to be told'
    return 'the same' if mean * expected > 0 else 'other'


def orderings_table(cells: dict[str, dict[int, dict]], paper: dict) -> str:
    """The paper's ablations beside ours, as differences of each pair, seed by seed.

    Args:
        cells (dict[str, dict[int, dict]]): Figures by variant, then by seed.
        paper (dict): The paper's tables by their numbers.

    Returns:
        str: The table.
    """
    keys = ('finetuning', 'finetuning_tenth', 'probe')
    rows = []
    for name, first, second, (table, upper, lower) in ORDERINGS:
        if not {first, second} <= set(cells):
            continue
        published = [paper[table]['rows'][i]['paper'][0] for i in (upper, lower)]
        expected = round(published[0] - published[1], 1)
        seeds = sorted(set(cells[first]) & set(cells[second]))
        row = [name, f'{expected:+.1f}']
        for key in keys:
            pairs = [(cells[first][seed].get(key), cells[second][seed].get(key)) for seed in seeds]
            differences = [upper - lower for upper, lower in pairs if None not in (upper, lower)]
            if not differences:
                row += ['-', '-']
                continue
            # -0.02 is said as +0.0, not as -0.0
            mean, *each = (f'{round(d, 1) + 0.0:+.1f}' for d in (statistics.mean(differences), *differences))
            row += [f'{mean} ({", ".join(each)})']
            row += [verdict(differences, expected)]
        rows.append(row)
    header = ['', "the paper's difference"]
    for key in keys:
        header += [f'ours, {FIGURES[key]} (by seed)', 'order']
    return markdown_table(header, rows)


def rivals_table(cells: dict[str, dict[int, dict]], measured: dict) -> str:
    """ConvMAE and rivals whose pretraining kept the device busy for as long.

    Args:
        cells (dict[str, dict[int, dict]]): Figures by variant, then by seed.
        measured (dict): ``seconds`` that a step keeps the device busy and ``parameters`` of the backbone, by variant.

    Returns:
        str: The table.
    """
    rows = []
    for variant in ('paper', *RIVALS):
        if runs := cells.get(variant):
            one = next(iter(runs.values()))
            row = [
                CONTENDERS[variant].heading,
                f'{measured["parameters"][variant] / 1e6:.2f}',
                f'{1e3 * measured["seconds"][variant]:.1f}',
                one.get('pretraining_steps', one['settings']['steps']),
            ]
            rows.append(row + [spread([cell[key] for cell in runs.values() if key in cell]) for key in FIGURES])
    return markdown_table(['', 'backbone, M', 'ms / step', 'steps', *FIGURES.values()], rows)


def variants_table(cells: dict[str, dict[int, dict]]) -> str:
    """All figures of all variants."""
    keys = dict(FIGURES, held_out_loss='held-out loss', seconds='seconds a cell')
    rows = []
    for variant, runs in cells.items():
        values = {key: [cell[key] for cell in runs.values() if key in cell] for key in keys}
        values['seconds'] = [sum(cell['seconds'].values()) for cell in runs.values()]
        row = [variant, len(runs), *map(spread, values.values())]
        if values['held_out_loss']:
            row[-2] = f'{statistics.mean(values["held_out_loss"]):.4f}'
        rows.append(row)
    return markdown_table(['', 'seeds', *keys.values()], rows)


def find_rivals(cells: dict[str, dict[int, dict]]) -> dict[str, str]:
    """Random weights, the paper's form and rivals, as far as they are there, and their headings."""
    headings = dict(random=STARTS['random'], **{name: CONTENDERS[name].heading for name in ('paper', *RIVALS)})
    return {name: heading for name, heading in headings.items() if name in cells}


def draw_curves(cells: dict[str, dict[int, dict]], starts: dict[str, str], path: Path) -> None:
    """Draw learning curves: a thin line a run, and their mean.

    Args:
        cells (dict[str, dict[int, dict]]): Figures by variant, then by seed.
        starts (dict[str, str]): Variants to draw, and their headings.
        path (Path): Picture to write; none without curves.
    """
    curves = {
        key: {start: [cell[key] for cell in cells[start].values() if cell.get(key)] for start in starts}
        for key in CURVES
    }
    drawn = [key for key, runs in curves.items() if any(runs.values())]
    if not drawn:
        return
    figure, axes = plt.subplots(1, len(drawn), figsize=(4.5 * len(drawn), 3.6), layout='constrained', squeeze=False)
    for axis, key in zip(axes[0], drawn):
        for number, (start, heading) in enumerate(starts.items()):
            draw_runs(axis, curves[key][start], f'C{number}', heading)
        axis.set_xlabel('step')
        axis.set_ylabel(CURVES[key])
    lines = {line.get_label(): line for axis in axes[0] for line in axis.lines if line.get_label() in starts.values()}
    figure.legend(lines.values(), lines.keys(), loc='outside lower center', ncols=len(lines))
    with write_whole(path) as partial:
        figure.savefig(partial, dpi=150, format='png')
    plt.close(figure)


def draw_runs(axis: plt.Axes, curves: list[list[tuple[int, float]]], color: str, label: str) -> None:
    """Draw learning curves, lists of pairs of step and figure, thin, and their mean as far as all of them go."""
    for curve in curves:
        axis.plot(*zip(*curve), color, lw=0.7, alpha=0.6)
    if curves:
        means = [statistics.mean(value for _, value in points) for points in zip(*curves)]
        axis.plot([step for step, _ in curves[0]][: len(means)], means, color, marker='.', label=label)


def write_tables(folder: Path) -> None:
    """Write the tables of all cells in a folder to its results.md, print them, and draw learning curves.

    Args:
        folder (Path): What was given as --out.
    """
    cells = load_cells(folder)
    if not cells:
        return
    paper = yaml.safe_load((BENCHMARKS / 'paper_tables.yml').read_text())
    every = [cell for runs in cells.values() for cell in runs.values()]
    machines = sorted({machine for cell in every for machine in cell['made'].values()})
    hours = sum(seconds for cell in every for seconds in cell['seconds'].values()) / 3600
    settings = dict(every[0]['settings'])
    settings['more_images'] = ' '.join(settings['more_images'])
    settings = ', '.join(f'{key.replace("_", " ")} {value}' for key, value in settings.items())
    measured = folder / 'steps.json'
    compared = any({first, second} <= set(cells) for _, first, second, _ in ORDERINGS)
    text = '\n\n'.join(
        [
            f'{len(every)} cells, {hours:.2f} cell hours ({"; ".join(machines)}): {settings}.',
            tasks_table(cells),
            *([rivals_table(cells, json.loads(measured.read_text()))] if measured.exists() else []),
            *([orderings_table(cells, paper)] if compared else []),
            variants_table(cells),
        ]
    )
    print(text)
    with write_whole(folder / 'results.md') as path:
        path.write_text(f'{text}\n')
    draw_curves(cells, find_starts(cells), folder / 'curves.png')
    if set(RIVALS) & set(cells):
        draw_curves(cells, find_rivals(cells), folder / 'rivals.png')
