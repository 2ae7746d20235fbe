"""Convert a checkpoint of mmpretrain with a plain ViT, such as MAE's, for ViTSAM, the ViT with windows.

python tools/model_converters/vit_to_vit_sam.py SRC DST

The names are the same. ViTSAM has its position embedding as a map, and no class token.
"""

import argparse
import math
import sys

from torch import Tensor

from mmconvmae.checkpoint import read_state_dict, write_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='checkpoint of pretraining or of a classifier, with a square image')
    parser.add_argument('dst', help='checkpoint to write, with the backbone alone')
    return parser.parse_args()


def convert(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring the backbone of a plain ViT into ViTSAM's form.

    Args:
        state_dict (dict[str, Tensor]): Parameters of an mmpretrain model.

    Returns:
        dict[str, Tensor]: Those of its backbone, with a position embedding of shape (1, rows, columns, C).

    Raises:
        ValueError: If there is no position embedding of a class token and a square of patches.
    """
    backbone = {name: value for name, value in state_dict.items() if name.startswith('backbone.')}
    pos_embed = backbone.get('backbone.pos_embed')
    shape = None if pos_embed is None else tuple(pos_embed.shape)
    edge = math.isqrt(shape[1] - 1) if shape is not None and len(shape) == 3 else 0
    if shape is None or len(shape) != 3 or edge**2 + 1 != shape[1]:
        raise ValueError(
            f"'backbone.pos_embed' is {'missing' if shape is None else f'of shape {shape}'}, and not of a class token "
            'and a square of patches; is it a checkpoint of a plain ViT?'
        )
    backbone.pop('backbone.cls_token', None)
    backbone['backbone.pos_embed'] = pos_embed[:, 1:].unflatten(1, (edge, edge))
    return backbone


def main() -> None:
    args = parse_args()
    try:
        backbone = convert(read_state_dict(args.src, 'state_dict'))
        write_checkpoint(dict(state_dict=backbone, meta=dict()), args.dst)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {args.src} was not converted: {error}')
    print(f'{len(backbone)} tensors written to {args.dst}.')


if __name__ == '__main__':
    main()
