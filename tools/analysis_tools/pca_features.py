"""Draw the features of images at every position, with the backbone of any checkpoint: three components as colours.

python tools/analysis_tools/pca_features.py IMAGE... --checkpoint CHECKPOINT --out picture.png

A row for each image: the image, and a map for each stage asked for. The principal components are those of all positions
of all images together, so alike colours are alike features in the whole column. A larger --img-size gives finer maps.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import torch
from mmengine.utils import track_iter_progress
from torch import Tensor

from mmconvmae.apis import LoadedBackbone, add_backbone_arguments, load_by_arguments, load_whole
from mmconvmae.utils import write_whole

matplotlib.use('Agg')
import matplotlib.pyplot as plt

# Shares of the positions that are beyond the darkest and the brightest colour.
QUANTILES = (0.01, 0.99)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', type=Path, help='image files')
    add_backbone_arguments(parser)
    parser.add_argument('--out', required=True, type=Path, help='picture to write, such as features.png')
    parser.add_argument('--stage', nargs='+', type=int, choices=(1, 2, 3), default=[3], help='whose maps to draw')
    parser.add_argument('--img-size', type=int, help="shorter edge of the images (default: the model's)")
    return parser.parse_args()


def principal_components(x: Tensor, number: int = 3) -> tuple[Tensor, Tensor]:
    """Project features on their principal components.

    Args:
        x (Tensor): Features, shape (N, C).
        number (int): How many components. Defaults to 3.

    Returns:
        tuple[Tensor, Tensor]: Projections of shape (N, number), float64, with the sign that makes the largest weight of
        each component positive; and the share of the variance that each component has, shape (number, ).
    """
    x = x.double()
    x = x - x.mean(dim=0)
    variances, vectors = torch.linalg.eigh(x.T @ x)  # C x C, however many positions; ascending
    vectors = vectors.flip(1)[:, :number]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    shares = variances.flip(0)[:number] / variances.sum().clamp(min=torch.finfo(x.dtype).tiny)
    return x @ (vectors * largest.sign()), shares


def to_colours(projections: Tensor) -> Tensor:
    """Bring each component into [0, 1], but for a few positions at both ends, which are cut off.

    Args:
        projections (Tensor): Shape (N, 3).

    Returns:
        Tensor: Shape (N, 3).
    """
    ordered = projections.sort(dim=0).values  # torch.quantile takes 16 million numbers at most
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in QUANTILES)
    return ((projections - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)


def compute_maps(model: LoadedBackbone, paths: list[Path], args: argparse.Namespace) -> list[tuple[Tensor, ...]]:
    """Compute the features of images, each of its own size.

    Args:
        model (LoadedBackbone): The backbone.
        paths (list[Path]): Image files.
        args (argparse.Namespace): Command line.

    Returns:
        list[tuple[Tensor, ...]]: For each image what to show of it, shape (H, W, 3) in [0, 1], and a map of shape
        (H / s, W / s, C) for the stride s of each stage.

    Raises:
        OSError: If an image cannot be used.
        ValueError: If the size of the images is no multiple of the stride, or the features are not finite.
    """
    backbone = model.backbone
    short_edge = args.img_size or min(backbone.img_size)
    if short_edge <= 0 or short_edge % backbone.stride:
        raise ValueError(f'--img-size is {short_edge}; give a multiple of {backbone.stride}.')
    maps = []
    for path in track_iter_progress(paths):
        image = load_whole(str(path), model.loader, short_edge, backbone.stride)
        outputs = model(image[None])
        if not all(output.isfinite().all() for output in outputs):
            raise ValueError('The features are not finite; is the checkpoint one of a run that diverged?')
        maps.append((to_picture(image), *(output[0].permute(1, 2, 0).cpu() for output in outputs)))
    return maps


def to_picture(image: Tensor) -> Tensor:
    """Make a picture of a loaded image.

    Args:
        image (Tensor): Shape (C, H, W), blue first where C is 3.

    Returns:
        Tensor: Shape (H, W, 3), in [0, 1]: of more than three channels the first three, of two the first. Values that
        do not lie in 0 to 255 are shown from the smallest to the largest.
    """
    image = image.float()
    if len(image) == 3:
        image = image.flip(0)
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    low, high = (0, 255) if image.min() >= 0 and image.max() <= 255 else (image.min(), image.max())
    return ((image - low) / max(high - low, 1e-12)).permute(1, 2, 0)


def draw(maps: list[tuple[Tensor, ...]], stages: list[int], out: Path) -> list[str]:
    """Write the picture.

    Args:
        maps (list[tuple[Tensor, ...]]): What :func:`compute_maps` gives.
        stages (list[int]): Stages of the maps, from 1.
        out (Path): File to write.

    Returns:
        list[str]: For each stage, how much of the variance there is in the picture.

    Raises:
        OSError: If it cannot be written.
        ValueError: If its name ends in no format that there is.
    """
    columns, told = [[image for image, *_ in maps]], []
    for i, stage in enumerate(stages, start=1):
        column = [parts[i] for parts in maps]
        projections, shares = principal_components(torch.cat([x.flatten(0, 1) for x in column]))
        colours = to_colours(projections).split([x.shape[0] * x.shape[1] for x in column])
        columns.append([colour.unflatten(0, x.shape[:2]) for colour, x in zip(colours, column)])
        percent = ' + '.join(f'{100 * share:.0f}' for share in shares)
        told.append(f'Stage {stage}: the three components have {percent} % of the variance.')
    # As wide as the column of images, and rows as high as their images.
    edge = 3
    heights = [edge * image.shape[0] / image.shape[1] for image in columns[0]]
    figure, axes = plt.subplots(
        len(maps),
        len(columns),
        figsize=(edge * len(columns), sum(heights) + 0.3),
        height_ratios=heights,
        squeeze=False,
        layout='constrained',
    )
    for row, pictures in zip(axes, zip(*columns)):
        height, width = pictures[0].shape[:2]
        for axis, picture in zip(row, pictures):
            axis.imshow(picture.numpy(), interpolation='nearest', extent=(0, width, height, 0))
            axis.set_axis_off()
    for axis, title in zip(axes[0], ('image', *(f'stage {stage}' for stage in stages))):
        axis.set_title(title, fontsize=9)
    with write_whole(out) as partial:
        figure.savefig(partial, dpi=150, format=out.suffix[1:] or 'png')
    plt.close(figure)
    return told


def main() -> None:
    args = parse_args()
    try:
        stages = sorted(set(args.stage))
        model = load_by_arguments(args, out_type='featmap', out_indices=[stage - 1 for stage in stages])
        print(model.origin)
        told = draw(compute_maps(model, args.images, args), stages, args.out)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: no picture was made: {error}')
    print('', *told, f'The picture is {args.out}', sep='\n')


if __name__ == '__main__':
    main()
