"""Convert a ConvMAE checkpoint of the authors' code to ours, or back.

python tools/model_converters/convmae_official.py SRC DST [--to-official]
"""

import argparse
import sys
from pprint import pformat

from mmconvmae.checkpoint import (
    check_strict,
    from_official,
    infer_model,
    read_state_dict,
    to_official,
    write_checkpoint,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert a ConvMAE checkpoint of the authors' code to ours, or back.")
    parser.add_argument(
        'src',
        help='checkpoint to read: pretraining with or without decoder, finetuned classifier, detector or segmentor',
    )
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument('--to-official', action='store_true', help="from ours to the authors' names")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        if args.to_official:
            ours = read_state_dict(args.src, 'state_dict')
            content = dict(model=to_official(ours))
        else:
            ours = from_official(read_state_dict(args.src, 'model', 'state_dict'))
            content = dict(state_dict=ours, meta=dict())
        model = infer_model(ours)
        check_strict(ours, model)
        write_checkpoint(content, args.dst)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {args.src} was not converted: {error}')
    print(f'{len(ours)} tensors written to {args.dst}. The model they fit:\nmodel = {pformat(model, sort_dicts=False)}')
    if model['backbone']['arch']['num_heads'] is None:
        print('No named architecture has these widths: set `num_heads` in `arch` to the number it was trained with.')


if __name__ == '__main__':
    main()
