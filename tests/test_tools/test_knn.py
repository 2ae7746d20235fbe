import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CONFIGS, import_script
from mmengine.config import Config
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from mmconvmae.registry import MODELS

PRETRAINING = CONFIGS['convmae_convvit-tiny-p16_1xb64-coslr-60e_digits-64px']
PROBE = CONFIGS['convvit-tiny-p16_1xb64-linear-coslr-20e_digits-64px']


@pytest.fixture(scope='module')
def tool():
    return import_script('tools/analysis_tools/knn.py')


def vote(train, labels, test, neighbors, temperature):
    """Classify each of ``test`` by a loop."""
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    predictions = []
    for x in test:
        similarities = train @ x
        nearest = np.argsort(-similarities)[:neighbors]
        votes = np.zeros(10)
        for i in nearest:
            votes[labels[i]] += np.exp(similarities[i] / temperature)
        predictions.append(votes.argmax())
    return np.array(predictions)


def test_equals_a_loop_over_images(run_tool, digits_config, digits):
    path = digits_config('linear')
    result = run_tool('analysis_tools/knn.py', path, '--seed', 3, '--neighbors', 7, '--temperature', 0.1)
    assert result.returncode == 0, result.stderr
    printed = float(re.search(r'k-NN accuracy: ([\d.]+) %, 7 of', result.stdout).group(1))

    config = Config.fromfile(path)
    torch.manual_seed(3)
    model = MODELS.build(config.model)
    model.init_weights()
    model.eval()
    split = {}
    for name in ('train', 'val'):
        files = sorted((digits / name).glob('*/*.png'))
        pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files])
        images = torch.from_numpy((pixels - 78) / 96)[:, None].expand(-1, 3, -1, -1)
        with torch.no_grad():
            features = torch.cat([model.backbone(part)[0] for part in images.split(64)]).numpy()
        split[name] = features, load_digits().target[[int(file.stem) for file in files]]
    predictions = vote(*split['train'], split['val'][0], 7, 0.1)
    assert printed == round(100 * np.mean(predictions == split['val'][1]), 2)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('missing.py', "Error: .*No such file or directory: 'missing.py'"),
        (PRETRAINING, 'Error: .* has no `test_dataloader`; give a classification config.'),
        (PROBE, 'Error: The checkpoint that the backbone starts from is missing'),
    ],
)
def test_wrong_config_or_checkpoint(run_tool, tmp_path, monkeypatch, config, message):
    monkeypatch.chdir(tmp_path)
    result = run_tool('analysis_tools/knn.py', config)
    assert result.returncode == 1 and re.search(message, result.stderr), result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('chunks', [(65536, 512), (100, 7), (3, 50)])
@pytest.mark.parametrize('temperature', [0.07, 1.0])
def test_votes_as_scikit_learn(tool, chunks, temperature):
    """Also where a chunk holds fewer than the neighbours, and with classes that overlap."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 8, generator=generator)
    labels = torch.randint(6, (350,), generator=generator)
    features = centres[labels] + torch.randn(350, 8, generator=generator)
    features *= torch.rand(350, 1, generator=generator) + 0.1  # lengths must not count
    train, test = features[:300], features[300:]
    classifier = KNeighborsClassifier(
        20, metric='cosine', weights=lambda distances: np.exp((1 - distances) / temperature)
    ).fit(train.numpy(), labels[:300].numpy())
    expected = classifier.predict(test.numpy())
    predicted = tool.vote(train, labels[:300], test, 20, temperature, chunks=chunks)
    np.testing.assert_array_equal(predicted, expected)
    assert 0.4 < (predicted == labels[300:]).double().mean() < 0.99


def test_images_that_are_all_alike(tool):
    """At cosines of 1 - 1e-9, among which float32 cannot tell the nearest."""
    generator = torch.Generator().manual_seed(0)
    features = 1 + 1e-4 * torch.randn(220, 16, generator=generator)
    labels = torch.randint(4, (200,), generator=generator)
    predicted = tool.vote(features[:200], labels, features[200:], 5, 0.07, chunks=(64, 8))
    exact = features.double().numpy()
    np.testing.assert_array_equal(predicted, vote(exact[:200], labels.numpy(), exact[200:], 5, 0.07))


def test_votes_at_a_temperature_at_which_only_the_nearest_counts(tool):
    train, labels = torch.eye(3), torch.tensor([2, 0, 1])
    assert tool.vote(train, labels, train + 0.1, 3, 1e-4).tolist() == [2, 0, 1]


@pytest.mark.parametrize('neighbors', [0, 4])
def test_more_neighbours_than_images(tool, neighbors):
    with pytest.raises(ValueError, match=f'{neighbors} neighbours cannot vote: there are 3 training images'):
        tool.vote(torch.eye(3), torch.arange(3), torch.eye(3), neighbors, 0.07)


def test_scikit_learn_is_not_needed(tool):
    assert 'sklearn' not in Path(tool.__file__).read_text()
