"""Train a config of any OpenMMLab library, also in several processes without an accelerator.

mim train mmconvmae CONFIG [--launcher pytorch]
"""

import argparse
import sys
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
    parser.add_argument('--amp', action='store_true', help="train in mmengine's automatic mixed precision")
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size, where the config does not',
    )
    parser.add_argument(
        '--no-persistent-workers', action='store_true', help='start the processes that load data anew in each epoch'
    )
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = load_config(args, 'pin_memory', 'persistent_workers')
    if args.no_validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if args.amp:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (config.get('auto_scale_lr') or {}):
            sys.exit(
                f'{args.config}: --auto-scale-lr needs to know for which batch size the learning rate is; set '
                '`auto_scale_lr.base_batch_size` in the config.'
            )
        config.auto_scale_lr.enable = True
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    with runner_of(config) as runner:
        runner.train()


if __name__ == '__main__':
    main()
