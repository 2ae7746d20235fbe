"""What the command lines of tools that take any checkpoint have in common."""

import argparse

from mmengine.device import get_device

from .backbone import LoadedBackbone, load_backbone


def add_backbone_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a backbone.

    Args:
        parser (argparse.ArgumentParser): The parser, changed in place.
    """
    parser.add_argument('--checkpoint', required=True, help="any with a ConvViT, ours or the authors'")
    parser.add_argument('--config', help="config to go by (default: the checkpoint's own, or what its tensors tell)")
    parser.add_argument('--num-heads', type=int, help='attention heads of stage 3, where nothing else tells')
    parser.add_argument(
        '--full-scale',
        type=float,
        help="what the largest value of a file's depth becomes, such as 255 (default: as in training)",
    )
    parser.add_argument('--device', default=get_device())


def load_by_arguments(args: argparse.Namespace, **kwargs) -> LoadedBackbone:
    """Load the backbone that a command line names.

    Args:
        args (argparse.Namespace): The command line.
        **kwargs: Other arguments of :class:`ConvViT`, such as ``out_type`` and ``out_indices``.

    Returns:
        LoadedBackbone: The backbone, on the device.

    Raises:
        OSError: If a file is missing.
        ValueError: As :func:`load_backbone`, and if there is no such device.
    """
    model = load_backbone(args.checkpoint, args.config, num_heads=args.num_heads, full_scale=args.full_scale, **kwargs)
    return model.to(args.device)
