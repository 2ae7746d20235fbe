"""Print the k-NN accuracy of a backbone's features, with the weights that a classification config starts from.

python tools/analysis_tools/knn.py CONFIG [--cfg-options model.backbone.init_cfg.checkpoint=PATH]

Nothing is trained. Features of the training images, in the test pipeline, classify those of the test images: the
nearest by cosine similarity s vote with weight exp(s / temperature).
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import track_iter_progress
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.utils.data import DataLoader

# Features of training and of test images that are compared at a time: 2^25 similarities of 8 bytes are 256 MB.
TRAIN_CHUNK, TEST_CHUNK = 65536, 512


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='classification config')
    parser.add_argument('--neighbors', type=int, default=20, help='how many vote')
    parser.add_argument('--temperature', type=float, default=0.07)
    parser.add_argument('--seed', type=int, default=0, help='of weights that no checkpoint gives')
    parser.add_argument('--device', default=get_device())
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of the config to replace'
    )
    return parser.parse_args()


@torch.no_grad()
def extract_features(model: nn.Module, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """Run the backbone over a data set.

    Args:
        model (nn.Module): Classifier, in evaluation mode.
        loader (DataLoader): Batches of images with labels.

    Returns:
        tuple[Tensor, Tensor]: Features of shape (N, C) and labels of shape (N, ), on the CPU.

    Raises:
        ValueError: If features are not finite.
    """
    features, labels = torch.empty(0), []
    for batch in track_iter_progress((loader, len(loader))):
        batch = model.data_preprocessor(batch)
        output = model.extract_feat(batch['inputs'], stage='backbone')[-1].float()
        if not labels:  # all at once: to join batches at the end would take the memory twice
            features = torch.empty(len(loader.dataset), output.shape[1])
        features[len(labels) : len(labels) + len(output)] = output
        labels += [sample.gt_label.item() for sample in batch['data_samples']]
    if not features.isfinite().all():
        raise ValueError('The features are not finite; is the checkpoint one of a run that diverged?')
    return features, torch.tensor(labels)


@torch.no_grad()
def vote(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    neighbors: int,
    temperature: float,
    device: str | torch.device = 'cpu',
    chunks: tuple[int, int] = (TRAIN_CHUNK, TEST_CHUNK),
) -> Tensor:
    """Classify by nearest neighbours, in chunks of both sets, of which one of each is on the device at a time.

    Args:
        train (Tensor): Features to be found, shape (N, C).
        labels (Tensor): Their classes, shape (N, ), from 0.
        test (Tensor): Features to classify, shape (M, C).
        neighbors (int): How many vote.
        temperature (float): The lower, the more the nearest of them counts.
        device (str | torch.device): Where to compare. Defaults to 'cpu'.
        chunks (tuple[int, int]): Training and test features that are compared at a time. Defaults to
            (65536, 512).

    Returns:
        Tensor: Classes, shape (M, ), on the CPU.

    Raises:
        ValueError: If there are fewer training features than neighbours.
    """
    if not 1 <= neighbors <= len(train):
        raise ValueError(f'{neighbors} neighbours cannot vote: there are {len(train)} training images.')
    train_chunk, test_chunk = chunks
    # All images may be at cosines of 0.99 and more, with neighbours that float32 would put in another order.
    place = dict(device=device, dtype=torch.float32 if torch.device(device).type == 'mps' else torch.float64)
    # The nearest so far of each test feature: similarities and labels, shape (M, at most `neighbors`).
    nearest = [(torch.empty(len(part), 0), labels.new_empty(len(part), 0)) for part in test.split(test_chunk)]
    for candidates, classes in zip(train.split(train_chunk), labels.split(train_chunk)):
        candidates, classes = F.normalize(candidates.to(**place)), classes.to(device)
        for i, part in enumerate(test.split(test_chunk)):
            similarities = F.normalize(part.to(**place)) @ candidates.T
            similarities, found = similarities.topk(min(neighbors, len(candidates)))
            similarities = torch.cat([nearest[i][0].to(**place), similarities], dim=1)
            found = torch.cat([nearest[i][1].to(device), classes[found]], dim=1)
            similarities, best = similarities.topk(min(neighbors, similarities.shape[1]))
            nearest[i] = similarities.cpu(), found.gather(1, best).cpu()
    similarities, classes = (torch.cat(parts) for parts in zip(*nearest))
    # All votes of an image divided by that of its nearest, which keeps them finite at any temperature.
    weights = ((similarities - similarities[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(test), int(labels.max()) + 1).scatter_add(1, classes, weights)
    return votes.argmax(dim=1)


def knn_accuracy(args: argparse.Namespace) -> tuple[float, int]:
    """Measure the accuracy of a config's backbone.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        tuple[float, int]: The share of test images classified rightly, and the number of training images.

    Raises:
        OSError: If the config, its data or its checkpoint is missing.
        ValueError: If the config has no data to classify, or too few training images.
    """
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    if 'test_dataloader' not in config:
        raise ValueError(f'{args.config} has no `test_dataloader`; give a classification config.')
    init_default_scope(config.default_scope)
    torch.manual_seed(args.seed)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    model.init_weights()
    model = model.to(args.device).eval()

    test_dataloader = config.test_dataloader
    train_dataset = dict(config.train_dataloader.dataset, pipeline=test_dataloader.dataset.pipeline)
    train, labels = extract_features(model, Runner.build_dataloader(dict(test_dataloader, dataset=train_dataset)))
    test, expected = extract_features(model, Runner.build_dataloader(test_dataloader))
    predicted = vote(train, labels, test, args.neighbors, args.temperature, args.device)
    return (predicted == expected).double().mean().item(), len(labels)


def main() -> None:
    args = parse_args()
    try:
        accuracy, num_train = knn_accuracy(args)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {error}')
    print(f'k-NN accuracy: {100 * accuracy:.2f} %, {args.neighbors} of {num_train} neighbours.')


if __name__ == '__main__':
    main()
