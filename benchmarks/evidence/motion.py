"""What pretraining is worth where a class is a motion: photographs that move, of which one frame tells nothing.

python benchmarks/evidence/motion.py PHOTOGRAPHS HELD_OUT [--seeds 0 1 2 --out FOLDER]

tools/dataset_converters/moving_photographs.py makes videos of two folders of photographs, such as flowers5/train and
flowers5/val. The tiny model is pretrained on the first without labels. Then, of its weights and of random ones,

- a linear probe judges the features,
- finetuning with labels begins from them, at each learning rate for the first seed and for the others at that which
  did best there on a fifth of the labelled videos that is not trained on,
- and, from the pretrained ones, finetuning of a model that sees the middle frame of each clip alone.

A figure that is in --out is not computed again. The whole takes about an hour of one CPU core's time.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import track_iter_progress
from torch import Tensor
from training import DivergedError, Training, announce, layer_groups

from mmconvmae.datasets import VideoList
from mmconvmae.registry import MODELS
from mmconvmae.utils import write_whole

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))
from equal_seconds import probe  # noqa: E402

PRETRAINING = ROOT / 'configs/video/videoconvmae_videoconvvit-tiny-p16_1xb4-coslr-60e_gestures-64px.py'
RATES = (1e-4, 2e-4, 4e-4, 8e-4)
NUM_CLASSES = 8


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photographs', type=Path)
    parser.add_argument('held_out', type=Path, help='other photographs, for validation')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--clips-per-class', type=int, default=600, help='of the unlabelled videos')
    parser.add_argument('--labelled', type=int, default=250, help='how many of them have labels, of each class')
    parser.add_argument('--validation', type=int, default=100, help='videos of the other photographs, of each class')
    parser.add_argument('--num-frames', type=int, default=4)
    parser.add_argument('--frame-interval', type=int, default=2)
    parser.add_argument('--size', type=int, default=64, help='edge of the clips, in pixels, a multiple of 16')
    parser.add_argument('--steps', type=int, default=1500, help='of pretraining, with 64 clips each')
    parser.add_argument('--finetuning-steps', type=int, default=500, help='with 16 clips each')
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'motion'))
    return parser.parse_args()


class Clips:
    """The middle clips of all videos of a folder that the converter made.

    Args:
        photographs (Path): Photographs to make them of, unless they are there.
        folder (Path): The folder of the videos.
        clips_per_class (int): How many.
        args (argparse.Namespace): Command line.
    """

    def __init__(self, photographs: Path, folder: Path, clips_per_class: int, args: argparse.Namespace) -> None:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            converter = ROOT / 'tools' / 'dataset_converters' / 'moving_photographs.py'
            command = [sys.executable, converter, photographs, folder, '--clips-per-class', str(clips_per_class)]
            subprocess.run(command, check=True)
        sampler = dict(
            type='mmconvmae.DenseViews',
            num_frames=args.num_frames,
            frame_interval=args.frame_interval,
            num_clips=1,
        )
        resize = dict(type='ResizeEdge', scale=args.size, edge='short', interpolation='area')
        frame_by_frame = dict(type='TransformBroadcaster', mapping=dict(img='imgs'), auto_remap=True)
        load = Compose(
            [
                dict(type='mmconvmae.LoadClip', sampler=sampler),
                dict(frame_by_frame, transforms=[resize]),
                dict(type='mmconvmae.FormatClips'),
            ]
        )
        videos = VideoList(data_root=str(folder), ann_file='list.txt')
        samples = [videos.get_data_info(i) for i in range(len(videos))]
        clips = [load(dict(sample))['img'] for sample in track_iter_progress(samples)]
        print()
        self.pixels = torch.from_numpy(np.stack(clips))  # (N, C, T, H, W), uint8
        self.labels = torch.tensor([sample['gt_label'] for sample in samples])


class Experiment:
    """All runs on some videos.

    Args:
        train (Clips): For pretraining; those with the first photographs have labels.
        val (Clips): For validation.
        args (argparse.Namespace): Command line.
    """

    def __init__(self, train: Clips, val: Clips, args: argparse.Namespace) -> None:
        self.train, self.val, self.args = train, val, args
        config = Config.fromfile(PRETRAINING)
        self.model = config.model
        self.model.backbone.update(img_size=args.size, num_frames=args.num_frames)
        self.preprocessor = MODELS.build(config.data_preprocessor)
        # A photograph is in eight videos, one after the other; all eight are held out or none.
        labelled = torch.arange(NUM_CLASSES * args.labelled)
        held_out = labelled // NUM_CLASSES % 5 == 0
        self.chosen, self.held_out = labelled[~held_out], labelled[held_out]

    def prepare(self, pixels: Tensor) -> Tensor:
        return self.preprocessor(dict(inputs=pixels))['inputs']

    def pretrain(self, seed: int, path: Path) -> None:
        """Pretrain, and write the weights of the backbone."""
        set_random_seed(seed)
        model = MODELS.build(self.model)
        model.init_weights()
        model.train()

        def loss() -> Tensor:
            ids = torch.randint(len(self.train.pixels), (64,))
            return model.loss(self.prepare(self.train.pixels[ids]), None)['loss']

        groups = layer_groups(model, 1e-3, 1.0, 0.05)
        Training(groups, loss, self.args.steps, 'cpu', (0.9, 0.95)).run(announce(f'pretraining, seed {seed}'))
        with write_whole(path) as partial:
            torch.save(model.backbone.state_dict(), partial)

    def build_backbone(self, weights: Path | None) -> nn.Module:
        backbone = dict(self.model.backbone, type='mmconvmae.VideoConvViT', out_type='avg_featmap')
        backbone = MODELS.build(backbone)
        backbone.init_weights()
        if weights is not None:
            missing, unexpected = backbone.load_state_dict(torch.load(weights), strict=False)
            if unexpected or any(not name.startswith('norm') for name in missing):
                raise ValueError(f'{weights} does not fit: {missing} are missing, and {unexpected} have no place.')
        return backbone

    @torch.no_grad()
    def judge_features(self, seed: int, weights: Path | None) -> dict:
        """Linear probe on all labelled videos, validated on the others, in per cent."""
        set_random_seed(seed)
        backbone = self.build_backbone(weights).eval()
        labelled = torch.cat([self.chosen, self.held_out])
        parts = []
        for pixels in (self.train.pixels[labelled], self.val.pixels):
            parts.append(torch.cat([backbone(self.prepare(batch))[0] for batch in pixels.split(64)]).double())
        mean, deviation = parts[0].mean(0), parts[0].std(0).clamp(min=1e-12)
        train, val = ((part - mean) / deviation for part in parts)
        with torch.enable_grad():
            classes, _ = probe(train, self.train.labels[labelled], val)
        return dict(val=100 * (classes == self.val.labels).double().mean().item())

    def finetune(self, seed: int, weights: Path | None, rate: float, one_frame: bool = False) -> dict:
        """Finetune.

        Args:
            seed (int): Of new weights and of the order.
            weights (Path, optional): Of the backbone; None for random ones.
            rate (float): Peak of the learning rate.
            one_frame (bool): Whether all frames of a clip are the one in its middle. Defaults to False.

        Returns:
            dict: Accuracy on the held-out fifth of the labelled videos and on those for validation, in per cent;
            empty if the loss did not stay finite.
        """
        set_random_seed(seed)
        backbone = self.build_backbone(weights)
        model = nn.ModuleDict(dict(backbone=backbone, head=nn.Linear(backbone.embed_dims[-1], NUM_CLASSES))).train()

        def scores(pixels: Tensor) -> Tensor:
            if one_frame:
                middle = pixels.shape[2] // 2
                pixels = pixels[:, :, middle : middle + 1].expand_as(pixels)
            return model['head'](backbone(self.prepare(pixels))[0])

        def loss() -> Tensor:
            ids = self.chosen[torch.randint(len(self.chosen), (16,))]
            return F.cross_entropy(scores(self.train.pixels[ids]), self.train.labels[ids])

        what = f'finetuning from {"random" if weights is None else "pretrained"} weights, seed {seed}, rate {rate:g}'
        groups = layer_groups(model, rate, 1.0, 0.05)
        try:
            Training(groups, loss, self.args.finetuning_steps, 'cpu').run(announce(what))
        except DivergedError as error:
            print(f'{what}: {error}')
            return {}
        model.eval()
        held_out = self.train.pixels[self.held_out], self.train.labels[self.held_out]
        figures = {}
        for name, (pixels, labels) in dict(held_out=held_out, val=(self.val.pixels, self.val.labels)).items():
            with torch.no_grad():
                classes = torch.cat([scores(batch).argmax(1) for batch in pixels.split(64)])
            figures[name] = 100 * (classes == labels).double().mean().item()
        return figures


def write_table(out: Path, rates: dict[str, float], seeds: list[int]) -> None:
    """Write the table, with the mean over seeds and the lowest and highest."""

    def column(name: str) -> str:
        values = [json.loads((out / 'cells' / f'{name}_seed{seed}.json').read_text()).get('val') for seed in seeds]
        values = [value for value in values if value is not None]
        return f'{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})' if values else 'diverged'

    lines = ['| weights | linear probe, % | finetuning, % | learning rate |', '| --- | --- | --- | --- |']
    for start, rate in rates.items():
        lines.append(f'| {start} | {column(f"{start}_probe")} | {column(f"{start}_{rate:g}")} | {rate:g} |')
    rate = rates['pretrained']
    lines.append(f'| pretrained, and one frame alone | | {column("one-frame")} | {rate:g} |')
    text = '\n'.join(lines) + '\n'
    with write_whole(out / 'results.md') as partial:
        partial.write_text(text)
    print(text)


def main() -> None:
    args = parse_args()
    for folder in (args.photographs, args.held_out):
        if not folder.is_dir():
            sys.exit(f'Error: there is no folder {folder}; give a folder of photographs.')
    init_default_scope('mmpretrain')
    MMLogger.get_current_instance().setLevel('WARNING')
    begin = time.perf_counter()
    train = Clips(args.photographs, args.out / 'videos' / 'train', args.clips_per_class, args)
    val = Clips(args.held_out, args.out / 'videos' / 'val', args.validation, args)
    experiment = Experiment(train, val, args)

    def figures(name: str, seed: int, compute: object, *arguments) -> dict:
        path = args.out / 'cells' / f'{name}_seed{seed}.json'
        if not path.exists():
            start = time.perf_counter()
            found = compute(seed, *arguments)
            with write_whole(path) as partial:
                partial.write_text(json.dumps(dict(found, seconds=time.perf_counter() - start)))
        return json.loads(path.read_text())

    rates = {}
    for number, seed in enumerate(args.seeds):
        pretrained = args.out / 'weights' / f'seed{seed}.pth'
        if not pretrained.exists():
            experiment.pretrain(seed, pretrained)
        for start, weights in (('random', None), ('pretrained', pretrained)):
            figures(f'{start}_probe', seed, experiment.judge_features, weights)
            tried = {
                rate: figures(f'{start}_{rate:g}', seed, experiment.finetune, weights, rate).get('held_out', 0)
                for rate in ([rates[start]] if start in rates else RATES)
            }
            rates.setdefault(start, max(tried, key=tried.get))
        figures('one-frame', seed, experiment.finetune, pretrained, rates['pretrained'], True)
        gone = (time.perf_counter() - begin) / 60
        left = gone / (number + 1) * (len(args.seeds) - number - 1)
        print(f'{number + 1} of {len(args.seeds)} seeds, {gone:.0f} minutes, at most {left:.0f} to go', flush=True)
    write_table(args.out, rates, args.seeds)


if __name__ == '__main__':
    main()
