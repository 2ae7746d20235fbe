"""Draw what a pretrained model makes of masked images.

A row for each image: original, masked, reconstruction, the reconstruction with the visible patches pasted in, and one
whose brightness and contrast come from the visible patches. Of a model for clips, three rows for each video: frames,
what the model sees of them, and its reconstruction; with --out OUT.gif they move.

python tools/visualize_reconstruction.py IMAGE... --config CONFIG --checkpoint CHECKPOINT --out OUT.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress

from mmconvmae.apis.backbone import full_scale_of
from mmconvmae.apis.images import load_center_crop
from mmconvmae.checkpoint import read_state_dict
from mmconvmae.datasets import LoadWholeImage
from mmconvmae.models import ConvMAE
from mmconvmae.registry import MODELS
from mmconvmae.visualization import draw_clips, draw_reconstructions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', type=Path, help='image files, or videos')
    parser.add_argument('--config', required=True, help='pretraining config')
    parser.add_argument('--checkpoint', required=True, help='its checkpoint, decoder included')
    parser.add_argument('--out', required=True, type=Path, help='picture to write, such as reconstruction.png')
    parser.add_argument('--mask-ratio', type=float, help="share of each image to remove (default: the config's)")
    parser.add_argument('--seed', type=int, default=0, help='seed of the masks')
    return parser.parse_args()


def load_model(config: Config, checkpoint: str) -> ConvMAE:
    """Build a pretraining model with its trained weights.

    Args:
        config (Config): Pretraining config.
        checkpoint (str): Checkpoint file.

    Returns:
        ConvMAE: The model, in eval mode.

    Raises:
        ValueError: If the checkpoint has no decoder or is of another architecture.
    """
    state_dict = read_state_dict(checkpoint, 'state_dict')
    if not any(name.startswith('neck.decoder_') for name in state_dict):
        raise ValueError(
            f'{checkpoint} has no decoder, so it cannot reconstruct (released pretraining checkpoints hold the encoder '
            'alone); use a checkpoint of your own pretraining.'
        )
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        fault = str(error).splitlines()[1].strip()
        raise ValueError(f'{checkpoint} does not fit the config: {fault}') from error
    return model.eval()


def draw(model: ConvMAE, images: list[Path], full_scale: float | None, out: Path) -> None:
    """Reconstruct images and write the picture.

    Args:
        model (ConvMAE): Pretraining model.
        images (list[Path]): Image files.
        full_scale (float | None): What the largest value of a file's depth becomes, as in training.
        out (Path): File to write.

    Raises:
        OSError: If an image is damaged, or the picture cannot be written.
        ValueError: If the mask ratio is none, or the picture's name ends in no format that there is.
    """
    size = model.backbone.img_size
    loader = LoadWholeImage(in_channels=model.backbone.in_channels, full_scale=full_scale)
    rows = []
    for path in track_iter_progress(images):
        inputs = load_center_crop(str(path), loader, size, max(size))[None]
        original = model.data_preprocessor(dict(inputs=inputs, data_samples=None))['inputs']  # (1, C, H, W)
        rows.append((original, *model.reconstruct(original)))
    draw_reconstructions(model, *(torch.cat(parts) for parts in zip(*rows)), out)


def draw_videos(model: ConvMAE, videos: list[Path], load: dict, out: Path) -> None:
    """Reconstruct clips and write the picture.

    Args:
        model (ConvMAE): Pretraining model of clips.
        videos (list[Path]): Video files.
        load (dict): The step of the training pipeline that loads a clip.
        out (Path): File to write.

    Raises:
        OSError: If a video is damaged, or the picture cannot be written.
        ValueError: If the picture's name ends in no format that there is.
    """
    height, width = model.backbone.img_size
    resize = dict(type='ResizeEdge', scale=max(height, width), edge='short')
    frame_by_frame = dict(type='TransformBroadcaster', mapping=dict(img='imgs'), auto_remap=True)
    crop = dict(type='CenterCrop', crop_size=(height, width))
    pipeline = Compose([load, dict(frame_by_frame, transforms=[resize, crop]), dict(type='mmconvmae.FormatClips')])
    clips = [torch.from_numpy(pipeline(dict(img_path=str(path)))['img']) for path in track_iter_progress(videos)]
    clips = model.data_preprocessor(dict(inputs=torch.stack(clips)))['inputs']  # (B, C, T, H, W)
    draw_clips(model, clips, *model.reconstruct(clips), out)


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    torch.manual_seed(args.seed)
    try:
        config = Config.fromfile(args.config)
        if args.mask_ratio is not None:
            config.model.mask_generator.mask_ratio = args.mask_ratio
        model = load_model(config, args.checkpoint)
        if model.backbone.num_frames is None:
            draw(model, args.images, full_scale_of(config), args.out)
        else:
            np.random.seed(args.seed)  # of the clips
            draw_videos(model, args.images, config.train_dataloader.dataset.pipeline[0], args.out)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: no picture was made: {error}')
    print(f'\nThe picture is {args.out}')


if __name__ == '__main__':
    main()
