"""Train a config of any OpenMMLab library, also in several processes without an accelerator.

mim train mmconvmae CONFIG [--launcher pytorch]
"""

import argparse
from pathlib import Path

import torch
import torch.distributed
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/ and the config name)')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or without a name from the last one in the work directory',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of the config to replace'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it; the process reads LOCAL_RANK, which is the same.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def load_config(args: argparse.Namespace) -> Config:
    """Read the config with the command line's settings.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        Config: The config.
    """
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or f'work_dirs/{args.config.stem}'
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    return config


def use_cpu_processes(config: Config) -> None:
    """Connect processes that have no accelerator.

    mmengine's own launcher insists on CUDA. It leaves a process group alone that exists already, and wraps the model
    for a CPU if it is told to.

    Args:
        config (Config): The config, which is changed.
    """
    torch.distributed.init_process_group('gloo')
    config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)


def main() -> None:
    args = parse_args()
    config = load_config(args)
    if args.launcher == 'pytorch' and get_device() == 'cpu':
        use_cpu_processes(config)
    Runner.from_cfg(config).train()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
