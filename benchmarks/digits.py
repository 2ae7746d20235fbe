"""Compare random and pretrained weights on handwritten digits: linear probe, k-NN, finetuning.

python benchmarks/digits.py [--seeds 0 1 2]

Writes the digits to data/digits if they are not there, and for each seed pretrains the tiny model on the training
images without labels. From its weights and from random ones it then trains a linear probe, votes by nearest
neighbours, and finetunes on ten labelled images of each class. The table has the accuracy on the validation images
after the last epoch, its mean over the seeds and their standard deviation. About 35 minutes on two CPU cores. A run
that is already in --out is not repeated; remove the folder to begin anew.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mmengine.utils import ProgressBar

from mmconvmae.utils import markdown_table, write_whole

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs' / 'convmae_digits'
PRETRAINING = CONFIGS / 'convmae_convvit-tiny-p16_1xb64-coslr-60e_digits-64px.py'
PROBE = CONFIGS / 'convvit-tiny-p16_1xb64-linear-coslr-20e_digits-64px.py'
FINETUNING = CONFIGS / 'convvit-tiny-p16_1xb20-coslr-50e_digits-10-per-class-64px.py'
STARTS = ('random', 'pretrained')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'digits'), help='folder for all runs')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every training')
    return parser.parse_args()


def run(log: Path, script: str, *args: str) -> str:
    """Run a tool of this repository, or stop with the end of what it printed.

    Args:
        log (Path): File for its output; where it exists the run is done.
        script (str): The tool, below tools/.
        *args (str): Its arguments.

    Returns:
        str: What it printed.

    Raises:
        SystemExit: If it fails.
    """
    if not log.exists():
        command = [sys.executable, TOOLS / script, *args]
        with write_whole(log) as partial:
            with partial.open('w') as file:
                code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
            if code:
                end = partial.read_text()[-2000:]
                sys.exit(f'\nError: {script} {args[0]} failed; its output ends with:\n{end}')
    return log.read_text()


def train(config: Path, work_dir: Path, *options: str) -> float | None:
    """Train a config.

    Args:
        config (Path): The config.
        work_dir (Path): Folder of the run.
        *options (str): Settings of the config to replace.

    Returns:
        float | None: The accuracy after the last epoch, in per cent, if the config measures it.
    """
    output = run(work_dir / 'log.txt', 'train.py', str(config), '--work-dir', str(work_dir), '--cfg-options', *options)
    accuracies = re.findall(r'Epoch\(val\).*accuracy/top1: ([\d.]+)', output)
    return float(accuracies[-1]) if accuracies else None


def evaluate(folder: Path, start: str, seed: int, weights: str, labels: str, *options: str) -> Iterator[float]:
    """Evaluate a backbone.

    Args:
        folder (Path): Folder of the runs.
        start (str): What their names begin with.
        seed (int): Seed of the random weights.
        weights (str): The setting that names the weights of the backbone.
        labels (str): The setting that names the labelled images for finetuning.
        *options (str): Other settings for every training.

    Yields:
        float: Accuracies in per cent: of the linear probe, by k-NN and of finetuning.
    """
    yield train(PROBE, folder / f'{start}_probe', weights, *options)
    output = run(
        folder / f'{start}_knn' / 'log.txt',
        *('analysis_tools/knn.py', str(PROBE), '--seed', str(seed), '--cfg-options', weights),
    )
    yield float(re.search(r'k-NN accuracy: ([\d.]+)', output).group(1))
    yield train(FINETUNING, folder / f'{start}_finetuning', weights, labels, *options)


def measure(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Do all runs.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        dict[str, dict[str, list[float]]]: Accuracies in per cent, by evaluation and by what it starts from, one for
        each seed.
    """
    results = {name: {start: [] for start in STARTS} for name in ('linear probe', 'k-NN', 'finetuning, 10 per class')}
    progress = ProgressBar(7 * len(args.seeds))
    for seed in args.seeds:
        folder = args.out / f'seed{seed}'
        common = [f'randomness.seed={seed}', *args.cfg_options]
        train(PRETRAINING, folder / 'pretraining', *common)
        progress.update()
        checkpoint = (folder / 'pretraining' / 'last_checkpoint').read_text()
        weights = dict(
            random='model.backbone.init_cfg=None', pretrained=f'model.backbone.init_cfg.checkpoint={checkpoint}'
        )
        labels = f'train_dataloader.dataset.ann_file=meta/train_10_per_class_{seed % 3}.txt'
        for start in STARTS:
            accuracies = evaluate(folder, start, seed, weights[start], labels, *common)
            for name, accuracy in zip(results, accuracies):
                results[name][start].append(accuracy)
                progress.update()
    print()
    return results


def format_table(results: dict[str, dict[str, list[float]]]) -> str:
    """Write accuracies as a Markdown table.

    Args:
        results (dict): What :func:`measure` gives.

    Returns:
        str: The table, with mean and standard deviation over the seeds.
    """

    def cell(values: list[float]) -> str:
        return f'{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}'

    return markdown_table(
        ['accuracy, %', *(f'from {start} weights' for start in STARTS)],
        [[name, *map(cell, by_start.values())] for name, by_start in results.items()],
    )


def main() -> None:
    args = parse_args()
    data = Path('data', 'digits')
    if not data.exists():
        subprocess.run([sys.executable, TOOLS / 'dataset_converters' / 'sklearn_digits.py', data], check=True)
    results = measure(args)
    print(format_table(results))
    with write_whole(args.out / 'results.json') as path:
        path.write_text(json.dumps(results, indent=1))


if __name__ == '__main__':
    main()
