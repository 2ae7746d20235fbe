"""Make a checkpoint for clips of one for images: of a pretraining model, a classifier or a backbone.

python tools/model_converters/inflate_image_checkpoint.py SRC DST [--num-frames 16] [--tubelet-size 2]
    [--temporal-kernel-size 5] [--no-positions]

On a clip that stands still the new model gives, in every time slot and up to rounding, what the old one gives for the
image: the same features of all stages, the same mean of tokens and so the same classes, and of a decoder the same
prediction for each frame of a patch. The frames of a patch are averaged where they come in; of a depthwise kernel the
middle in time is the old one and the rest zero; in stage 3 each token finds itself once in every slot, which changes no
average. Until stage 3 that holds for moving clips too, with the mean of each patch's frames for an image.

All slots get the position embedding of the image, so that the new model does not know the time until it has been
trained. A learnable embedding learns it. That of pretraining is fixed: leave it out there with --no-positions, and
the model keeps its own, which tells the time.
"""

import argparse
import sys

import torch
from torch import Tensor

from mmconvmae.checkpoint import read_state_dict, use_todays_backbone_names, write_checkpoint

PROJECTION = 'backbone.stages.0.patch_embed.projection.weight'
POSITIONS = ('backbone.stages.2.pos_embed.weight', 'neck.decoder_pos_embed.weight')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='checkpoint of a ConvViT for images')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument('--num-frames', type=int, default=16, help='frames of a clip (default: 16)')
    parser.add_argument('--tubelet-size', type=int, default=2, help='frames that become one (default: 2)')
    parser.add_argument(
        '--temporal-kernel-size', type=int, default=5, help='length of the depthwise kernels in time (default: 5)'
    )
    parser.add_argument('--no-positions', action='store_true', help='leave the position embeddings out')
    return parser.parse_args()


def inflate(
    state_dict: dict[str, Tensor],
    num_frames: int = 16,
    tubelet_size: int = 2,
    temporal_kernel_size: int = 5,
    positions: bool = True,
) -> dict[str, Tensor]:
    """Give the parameters of a model for images the shapes of one for clips.

    Args:
        state_dict (dict[str, Tensor]): Parameters of a model with a ConvViT.
        num_frames (int): Frames of a clip. Defaults to 16.
        tubelet_size (int): Frames that become one. Defaults to 2.
        temporal_kernel_size (int): Length of the depthwise kernels in time, odd. Defaults to 5.
        positions (bool): Whether position embeddings are among them. Defaults to True.

    Returns:
        dict[str, Tensor]: The parameters.

    Raises:
        ValueError: If the numbers do not go together, or the checkpoint is not one of a ConvViT for images, or has
            windows, relative positions or a fourth level, which a model for clips has not.
    """
    if tubelet_size < 1 or num_frames < 1 or num_frames % tubelet_size:
        raise ValueError(f'{num_frames} frames cannot be put together by {tubelet_size}; choose numbers that divide.')
    if temporal_kernel_size < 1 or temporal_kernel_size % 2 == 0:
        raise ValueError(f'the temporal kernel is {temporal_kernel_size} long; choose an odd length.')
    state_dict = dict(state_dict)
    use_todays_backbone_names(state_dict, 'backbone.')
    if PROJECTION not in state_dict:
        raise ValueError(
            f'it has no {PROJECTION!r}; is it a checkpoint of a ConvViT? One of the authors is converted with '
            'tools/model_converters/convmae_official.py first.'
        )
    for name, value in state_dict.items():
        if 'rel_pos' in name or name.startswith('backbone.fourth_level.'):
            raise ValueError(f'it has {name!r}, and a model for clips has no relative positions and no fourth level.')
        if name.endswith('depthwise_conv.weight') and value.dim() != 4:
            raise ValueError(f'{name!r} is of shape {tuple(value.shape)}; it is one for clips already.')
    in_channels, slots = state_dict[PROJECTION].shape[1], num_frames // tubelet_size
    inflated = {}
    for name, value in state_dict.items():
        if name in POSITIONS:
            if not positions:
                continue
            value = value.unsqueeze(1).repeat(1, slots, 1, 1)  # (1, T, L, C)
        elif name == PROJECTION:
            value = value.repeat(1, tubelet_size, 1, 1) / tubelet_size  # (C1, tubelet_size * C, p, p)
        elif name.endswith('depthwise_conv.weight'):
            kernel = value.new_zeros(len(value), 1, temporal_kernel_size, *value.shape[2:])
            kernel[:, :, temporal_kernel_size // 2] = value
            value = kernel
        elif name.startswith('neck.decoder_pred.'):
            pixels = value.unflatten(0, (-1, 1, in_channels))
            value = torch.cat([pixels] * tubelet_size, 1).flatten(0, 2)  # a row for each pixel, frame and channel
        inflated[name] = value
    return inflated


def main() -> None:
    args = parse_args()
    try:
        state_dict = inflate(
            read_state_dict(args.src, 'state_dict'),
            args.num_frames,
            args.tubelet_size,
            args.temporal_kernel_size,
            not args.no_positions,
        )
        write_checkpoint(dict(state_dict=state_dict, meta=dict()), args.dst)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {args.src} was not inflated: {error}')
    print(f'{len(state_dict)} tensors for clips of {args.num_frames} frames written to {args.dst}.')


if __name__ == '__main__':
    main()
