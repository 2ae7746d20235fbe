"""Test a checkpoint with a config of any OpenMMLab library, also in several processes without an accelerator.

mim test mmconvmae CONFIG --checkpoint CHECKPOINT [--launcher pytorch]
"""

import argparse
from pathlib import Path

from launch import add_arguments, load_config, runner_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('checkpoint', help='checkpoint to test')
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = load_config(args, 'pin_memory')
    config.load_from, config.resume = args.checkpoint, False
    with runner_of(config) as runner:
        runner.test()


if __name__ == '__main__':
    main()
