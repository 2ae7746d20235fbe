"""What train.py and test.py share: their command line, and processes that have no accelerator."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every run.

    Args:
        parser (argparse.ArgumentParser): The parser.
    """
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/ and the config name)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of the config to replace'
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='do not load data into page-locked memory')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it; the process reads LOCAL_RANK, which is the same.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace, *loader_options: str) -> Config:
    """Read the config with the command line's settings.

    Like mmpretrain's scripts, it completes the dataloaders of mmpretrain's configs; those of other libraries have
    defaults of their own.

    Args:
        args (argparse.Namespace): Command line, with the path ``config``, and ``no_`` before each of the options.
        *loader_options (str): Options of dataloaders that are on, where neither config nor command line says otherwise.

    Returns:
        Config: The config.
    """
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    loaders = [config.get(f'{part}_dataloader') for part in ('train', 'val', 'test')]
    for loader in filter(None, loaders):
        if config.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', dict(type='default_collate'))
            for option in loader_options:
                loader.setdefault(option, True)
        loader.update({option: False for option in loader_options if getattr(args, f'no_{option}')})
    return config


@contextmanager
def runner_of(config: Config) -> Iterator[Runner]:
    """Make the runner of a config, and take the processes apart afterwards.

    mmengine's own launcher insists on CUDA. It leaves a process group alone that exists already, and wraps the model
    for a CPU if it is told to.

    Args:
        config (Config): The config, with its launcher.

    Yields:
        Runner: The runner.
    """
    if config.launcher == 'pytorch' and get_device() == 'cpu':
        torch.distributed.init_process_group('gloo')
        config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    yield RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
