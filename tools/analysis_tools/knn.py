"""Print the k-NN accuracy of a backbone's features, with the weights that a classification config starts from.

python tools/analysis_tools/knn.py CONFIG [--cfg-options model.backbone.init_cfg.checkpoint=PATH]

Nothing is trained. Features of the training images, in the test pipeline, classify those of the test images: the
nearest by cosine similarity s vote with weight exp(s / temperature).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import track_iter_progress
from mmpretrain.registry import MODELS
from sklearn.neighbors import KNeighborsClassifier
from torch.utils.data import DataLoader


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
def extract_features(model: nn.Module, loader: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Run the backbone over a data set.

    Args:
        model (nn.Module): Classifier, in evaluation mode.
        loader (DataLoader): Batches of images with labels.

    Returns:
        tuple[np.ndarray, np.ndarray]: Features of shape (N, C) and labels of shape (N, ).
    """
    features, labels = [], []
    for batch in track_iter_progress((loader, len(loader))):
        batch = model.data_preprocessor(batch)
        features.append(model.extract_feat(batch['inputs'], stage='backbone')[-1].float().cpu())
        labels += [sample.gt_label.item() for sample in batch['data_samples']]
    return torch.cat(features).numpy(), np.array(labels)


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
    train = extract_features(model, Runner.build_dataloader(dict(test_dataloader, dataset=train_dataset)))
    test = extract_features(model, Runner.build_dataloader(test_dataloader))
    classifier = KNeighborsClassifier(
        args.neighbors, metric='cosine', weights=lambda distances: np.exp((1 - distances) / args.temperature)
    )
    return classifier.fit(*train).score(*test), len(train[1])


def main() -> None:
    args = parse_args()
    try:
        accuracy, num_train = knn_accuracy(args)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {error}')
    print(f'k-NN accuracy: {100 * accuracy:.2f} %, {args.neighbors} of {num_train} neighbours.')


if __name__ == '__main__':
    main()
