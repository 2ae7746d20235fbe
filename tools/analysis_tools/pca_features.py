"""Draw the features of images at every position, with the backbone of any checkpoint: three components as colours.

python tools/analysis_tools/pca_features.py IMAGE... --checkpoint CHECKPOINT --out picture.png

A row for each image: the image, and a map for each stage asked for. The principal components are those of all positions
of all images together, so alike colours are alike features in the whole column. A larger --img-size gives finer maps.

Most of what varies in stage 3 may be the position itself. So the features of an even image, in the mean colour and of
the same size, are taken off, and what is left is brought to unit length, as k-NN compares it; --raw shows features as
they are.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
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
    parser.add_argument('--raw', action='store_true', help='leave the features of an even image in')
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


def compute_maps(
    model: LoadedBackbone, paths: list[Path], args: argparse.Namespace
) -> tuple[list[Tensor], list[list[Tensor]], list[list[Tensor]]]:
    """Compute the features of images, each of its own size.

    Args:
        model (LoadedBackbone): The backbone.
        paths (list[Path]): Image files.
        args (argparse.Namespace): Command line.

    Returns:
        tuple[list[Tensor], list[list[Tensor]], list[list[Tensor]]]: What to show of each image, shape (H, W, 3) in
        [0, 1]; for each stage of stride s a map of each image, shape (H / s, W / s, C); and likewise the maps of an
        even image of the same size, in the mean colour.

    Raises:
        OSError: If an image cannot be used.
        ValueError: If the size of the images is no multiple of the stride, or the features are not finite.
    """
    backbone = model.backbone
    short_edge = args.img_size or min(backbone.img_size)
    if short_edge <= 0 or short_edge % backbone.stride:
        raise ValueError(f'--img-size is {short_edge}; give a multiple of {backbone.stride}.')

    def to_map(x: Tensor) -> Tensor:  # (1, C, H, W) -> (H, W, C)
        return x[0].permute(1, 2, 0).cpu()

    pictures, maps, even_maps, of_even = [], [], [], {}
    for path in track_iter_progress(paths):
        image = load_whole(str(path), model.loader, short_edge, backbone.stride)
        features = [to_map(x) for x in model(image[None])]
        if image.shape not in of_even:
            even = model.data_preprocessor.mean.new_zeros(1, *image.shape)  # as normalised
            with torch.no_grad():
                of_even[image.shape] = [to_map(x) for x in backbone(even)]
        if not all(x.isfinite().all() for x in features):
            raise ValueError('The features are not finite; is the checkpoint one of a run that diverged?')
        pictures.append(to_picture(image))
        maps.append(features)
        even_maps.append(of_even[image.shape])
    return pictures, *([list(column) for column in zip(*rows)] for rows in (maps, even_maps))


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


def to_pictures(maps: list[Tensor], even_maps: list[Tensor] | None = None) -> tuple[list[Tensor], str]:
    """Make pictures of the features of one stage.

    Args:
        maps (list[Tensor]): Of each image, shape (H, W, C).
        even_maps (list[Tensor], optional): Those of even images, to be taken off. Defaults to None.

    Returns:
        tuple[list[Tensor], str]: The pictures, shape (H, W, 3) in [0, 1]; and how much of the variance is in them.
    """
    sizes = [x.shape[:2] for x in maps]
    features = torch.cat([x.flatten(0, 1) for x in maps])
    told = 'the three components have'
    if even_maps is not None:
        total = features.var(dim=0).sum()
        features = features - torch.cat([x.flatten(0, 1) for x in even_maps])
        share = 1 - features.var(dim=0).sum() / total
        told = (
            f'{100 * max(share, 0):.0f} % of the variance is in an even image too; of the directions of the rest {told}'
        )
        features = F.normalize(features)
    projections, shares = principal_components(features)
    colours = to_colours(projections).split([height * width for height, width in sizes])
    pictures = [colour.unflatten(0, size) for colour, size in zip(colours, sizes)]
    percent = ' + '.join(f'{100 * share:.0f}' for share in shares)
    return pictures, f'{told} {percent} % of the variance.'


def draw(columns: list[list[Tensor]], titles: list[str], out: Path) -> None:
    """Write the picture.

    Args:
        columns (list[list[Tensor]]): The images and their maps, shape (H, W, 3) in [0, 1].
        titles (list[str]): What stands above each column.
        out (Path): File to write.

    Raises:
        OSError: If it cannot be written.
        ValueError: If its name ends in no format that there is.
    """
    # As wide as the column of images, and rows as high as their images.
    edge = 3
    heights = [edge * image.shape[0] / image.shape[1] for image in columns[0]]
    figure, axes = plt.subplots(
        len(columns[0]),
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
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9)
    with write_whole(out) as partial:
        figure.savefig(partial, dpi=150, format=out.suffix[1:] or 'png')
    plt.close(figure)


def main() -> None:
    args = parse_args()
    try:
        stages = sorted(set(args.stage))
        model = load_by_arguments(args, out_type='featmap', out_indices=[stage - 1 for stage in stages])
        if model.backbone.num_frames is not None:
            raise ValueError(f'{args.checkpoint} has a model of clips, and this draws features of images.')
        print(model.origin)
        pictures, maps, even_maps = compute_maps(model, args.images, args)
        columns, titles = [pictures], ['image']
        print()
        for stage, of_images, of_even in zip(stages, maps, even_maps):
            column, told = to_pictures(of_images, None if args.raw else of_even)
            columns.append(column)
            titles.append(f'stage {stage}')
            print(f'Stage {stage}: {told}')
        draw(columns, titles, args.out)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: no picture was made: {error}')
    print(f'The picture is {args.out}')


if __name__ == '__main__':
    main()
