"""Train a config of any OpenMMLab library, also in several processes without an accelerator.

mim train mmconvmae CONFIG [--launcher pytorch]
"""

import argparse
from pathlib import Path

from launch import add_arguments, load_config, runner_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or without a name from the last one in the work directory',
    )
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = load_config(args)
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    with runner_of(config) as runner:
        runner.train()


if __name__ == '__main__':
    main()
