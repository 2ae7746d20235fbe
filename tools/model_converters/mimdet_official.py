"""Convert a MIMDet checkpoint of its authors' code, a Mask R-CNN of detectron2, to ours, a Mask R-CNN of mmdet.

python tools/model_converters/mimdet_official.py SRC DST
"""

import argparse
import sys

from mmconvmae.checkpoint import mimdet_from_official, read_state_dict, write_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write, for the config of MIMDet')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        ours = mimdet_from_official(read_state_dict(args.src, 'model', 'state_dict'))
        write_checkpoint(dict(state_dict=ours, meta=dict()), args.dst)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {args.src} was not converted: {error}')
    print(f'{len(ours)} tensors written to {args.dst}.')


if __name__ == '__main__':
    main()
