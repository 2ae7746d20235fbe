"""Convert a rival's checkpoint of its authors' code to the names that it has here.

python tools/model_converters/rival_official.py RIVAL SRC DST

mimdet: a Mask R-CNN of detectron2, to one of mmdet.
data2vec: a model of BEiT's code, pretrained or finetuned, to one of mmpretrain.
"""

import argparse
import sys

from mmconvmae.checkpoint import data2vec_from_official, mimdet_from_official, read_state_dict, write_checkpoint

RIVALS = dict(mimdet=mimdet_from_official, data2vec=data2vec_from_official)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rival', choices=RIVALS)
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help="checkpoint to write, for the rival's config")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        ours = RIVALS[args.rival](read_state_dict(args.src, 'model', 'state_dict'))
        write_checkpoint(dict(state_dict=ours, meta=dict()), args.dst)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {args.src} was not converted: {error}')
    print(f'{len(ours)} tensors written to {args.dst}.')


if __name__ == '__main__':
    main()
