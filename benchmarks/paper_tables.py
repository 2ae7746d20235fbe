"""Print tables of the ConvMAE paper, and its figure 3, with what the configs here measure beside them.

python benchmarks/paper_tables.py [--table 1 2 3 4 5 6 figure3 later] [--json]

Accuracies are the authors'; none was trained with these configs. Parameters and multiply-adds are counted on PyTorch's
meta device, where nothing is computed. What the paper calls FLOPs are multiply-adds; in the column FLOPs each is two.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn as nn
import yaml
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import ProgressBar, to_2tuple

from mmconvmae.utils import count_multiply_adds, count_parameters, markdown_table

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
TABLES = {str(key): table for key, table in yaml.safe_load(Path(__file__).with_suffix('.yml').read_text()).items()}
# Boxes that a detector's heads see for an image.
PROPOSALS, DETECTIONS = 1000, 100


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', nargs='+', choices=list(TABLES), default=list(TABLES))
    parser.add_argument('--json', action='store_true', help='print JSON instead of Markdown')
    return parser.parse_args()


def build(name: str | dict) -> tuple[Config, nn.Module]:
    """Build a config's model on the meta device, which is the default while rows are measured.

    Args:
        name (str | dict): The config, under configs/ and without its ending, or a config of a model of mmpretrain.

    Returns:
        tuple[Config, nn.Module]: The config and its model, in evaluation mode.
    """
    if isinstance(name, dict):
        config = Config(dict(model=name, default_scope='mmpretrain'))
    else:
        config = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(config.default_scope)
    try:
        model = MODELS.build(config.model)
    except RuntimeError:  # Swin and MViT read numbers off tensors while they are built
        with torch.device('cpu'):
            model = MODELS.build(config.model).to('meta')
    return config, model.eval()


def measure_encoder(configs: list[str]) -> tuple[int, int]:
    """Parameters of the encoder in pretraining, with what a decoder takes of its early stages; a finetuned image."""
    _, pretraining = build(configs[0])
    fusion = getattr(pretraining.neck, 'fusion', None)
    encoder = [pretraining.backbone, *([fusion.projections] if fusion else [])]
    config, classifier = build(configs[1])
    size = config.model.backbone.get('img_size', 224)
    return count_parameters(*encoder), count_multiply_adds(classifier, torch.empty(1, 3, size, size))


def measure_pretraining(configs: list[str]) -> tuple[int, int]:
    """Parameters of the model and what a masked image costs it."""
    config, model = build(configs[0])
    size = config.model.backbone.img_size
    return count_parameters(model), count_multiply_adds(model.loss, torch.empty(1, 3, size, size), None)


def measure_dense_pretraining(configs: list[str]) -> tuple[int, int]:
    """As in pretraining, but all positions of stages 1 and 2 and all patches computed, as in the released code."""
    config, model = build(configs[0])
    if model.backbone.conv_mode == 'visible':
        model.backbone.conv_mode = 'masked'
    size = config.model.backbone.img_size

    def run(images: torch.Tensor) -> None:
        mask = model.generate_mask(images)
        model.neck(model.backbone(images, mask), mask, all_patches=True)

    return count_parameters(model), count_multiply_adds(run, torch.empty(1, 3, size, size))


def measure_detector(configs: list[str]) -> tuple[int, int]:
    """Parameters of the model and what an image with 1 000 proposals and 100 detections costs it."""
    config, model = build(configs[0])
    height, width = to_2tuple(config.image_size)

    def run(images: torch.Tensor) -> None:
        model.rpn_head(model.extract_feat(images))
        for head, rois in ((model.roi_head.bbox_head, PROPOSALS), (model.roi_head.mask_head, DETECTIONS)):
            head(torch.empty(rois, head.in_channels, *head.roi_feat_size))

    return count_parameters(model), count_multiply_adds(run, torch.empty(1, 3, height, width))


def measure_segmentor(configs: list[str]) -> tuple[int, int]:
    """Parameters without the auxiliary head and what a window costs."""
    config, model = build(configs[0])
    parameters = count_parameters(model) - count_parameters(model.auxiliary_head)
    images = torch.empty(1, 3, *config.crop_size)
    return parameters, count_multiply_adds(lambda: model.decode_head(model.extract_feat(images)))


def measure_clips(configs: list[str | dict]) -> tuple[int, int]:
    """Trained parameters of the classifier, which comes second if it has a pretraining config; one view of a clip."""
    _, classifier = build(configs[:2][-1])
    backbone = classifier.backbone
    clips = torch.empty(1, backbone.in_channels, backbone.num_frames, *backbone.img_size)
    trained = sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)
    return trained, count_multiply_adds(classifier, clips)


MEASURES = dict(
    encoder=measure_encoder,
    pretraining=measure_pretraining,
    dense_pretraining=measure_dense_pretraining,
    detector=measure_detector,
    segmentor=measure_segmentor,
    clips=measure_clips,
)


def measure_table(table: dict, progress: ProgressBar) -> list[dict]:
    """Measure the rows of a table.

    Args:
        table (dict): A table of paper_tables.yml.
        progress (ProgressBar): Moved on with each row.

    Returns:
        list[dict]: The rows, with ``parameters``, ``multiply_adds`` and ``flops`` (None where there is nothing to
        measure), and ``relative``, multiply-adds as a multiple of the first row's.
    """
    rows = []
    for row in table['rows']:
        configs = row['configs'] or ([row['model']] if 'model' in row else [])
        with torch.device('meta'):
            parameters, multiply_adds = MEASURES[table['kind']](configs) if configs else (None, None)
        rows.append(dict(row, paper=dict(zip(table['columns'], row['paper'])), parameters=parameters))
        rows[-1].update(multiply_adds=multiply_adds, flops=multiply_adds and 2 * multiply_adds)
        rows[-1].update(relative=multiply_adds and multiply_adds / rows[0]['multiply_adds'])
        progress.update()
    return rows


def format_table(table: dict, rows: list[dict]) -> str:
    """Write a measured table as Markdown.

    Args:
        table (dict): The table of paper_tables.yml.
        rows (list[dict]): What :func:`measure_table` gives. Columns of what is measured are left out if nothing is.
    """
    is_measured = any(row['multiply_adds'] for row in rows)

    def cells(row: dict) -> list[str]:
        paper = ['-' if value is None else str(value) for value in row['paper'].values()]
        if row['multiply_adds'] is None:
            return [row['name'], *paper, *['-'] * 4 * is_measured]
        # One digit more than the paper has would not tell whether it rounds or cuts off.
        cost = f'{row["relative"]:.5f} x' if table.get('relative') else f'{row["multiply_adds"] / 1e9:.1f}'
        configs = '<br>'.join(f'`{name}`' for name in row['configs']) or '-'
        return [row['name'], *paper, f'{row["parameters"] / 1e6:.1f}', cost, f'{row["flops"] / 1e9:.1f}', configs]

    header = ['', *(f'{column} ({table.get("source", "paper")})' for column in table['columns'])]
    if is_measured:
        header += ['params, M', 'multiply-adds, G', 'FLOPs, G', 'configs']
    notes = [f'- {row["name"]}: {row["note"].strip()}.' for row in rows if 'note' in row]
    body = markdown_table(header, map(cells, rows))
    parts = [f'## {table["title"]}', body, table.get('note', '').strip(), '\n'.join(notes)]
    return '\n\n'.join(part for part in parts if part)


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')  # what models say while they are built
    progress = ProgressBar(sum(len(TABLES[number]['rows']) for number in args.table), file=sys.stderr)
    measured = {number: measure_table(TABLES[number], progress) for number in args.table}
    print(file=sys.stderr)
    if args.json:
        print(json.dumps(measured, indent=2))
    else:
        print('\n\n'.join(format_table(TABLES[number], rows) for number, rows in measured.items()))


if __name__ == '__main__':
    main()
