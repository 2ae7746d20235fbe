import re

import numpy as np
import pytest
import torch
from helpers import import_script, run_main
from mmengine.config import Config
from PIL import Image

from mmconvmae.apis import load_backbone


@pytest.fixture(scope='module')
def tool():
    return import_script('tools/analysis_tools/pca_features.py')


@pytest.fixture
def checkpoint(small_config, build, tmp_path):
    model = build(small_config)
    text = Config(dict(model=small_config)).pretty_text
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=text)), tmp_path / 'epoch_1.pth')
    return tmp_path / 'epoch_1.pth'


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / 'an image.png', tmp_path / 'tall.jpg']
    for path, shape in zip(paths, ((60, 90, 3), (130, 64, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    return paths


@pytest.mark.parametrize('number', [5, 200])
def test_components_are_those_of_a_singular_value_decomposition(tool, number):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(number, 12)) * np.arange(1, 13))
    projections, shares = tool.principal_components(x.float())
    centred = x.float().double().numpy()
    centred = centred - centred.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    for i in range(3):
        sign = np.sign(right[i, np.abs(right[i]).argmax()])
        np.testing.assert_allclose(projections[:, i], sign * left[:, i] * singular[i], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(shares, singular[:3] ** 2 / (singular**2).sum(), rtol=1e-6)
    again, _ = tool.principal_components(x.float())
    assert torch.equal(projections, again)


def test_features_that_are_all_alike(tool):
    projections, shares = tool.principal_components(torch.ones(10, 4))
    assert not projections.any() and not shares.any()
    assert not tool.to_colours(projections).any()


def test_colours_fill_the_range(tool):
    colours = tool.to_colours(torch.arange(1001.0)[:, None] * torch.tensor([1.0, -2.0, 5.0]))
    assert (colours[:11] == torch.tensor([0.0, 1.0, 0.0])).all() and (colours[500] == 0.5).all()
    torch.testing.assert_close(colours[501, 0] - colours[500, 0], torch.tensor(1 / 980))


def test_picture(run_tool, checkpoint, images, tmp_path):
    out = tmp_path / 'new' / 'features.png'
    options = ('--checkpoint', checkpoint, '--out', out, '--stage', 3, 1, '--device', 'cpu')
    result = run_tool('analysis_tools/pca_features.py', *images, *options)
    assert result.returncode == 0, result.stderr
    assert (
        'Stage 1: ' in result.stdout
        and 'the three components have' in result.stdout
        and f'The picture is {out}' in result.stdout
    )
    with Image.open(out) as picture:
        assert picture.width == 3 * 3 * 150  # the image and two maps


def test_maps_of_whole_images(tool, checkpoint, images):
    """Each of its own proportions, up to half a stride; values are the backbone's."""
    model = load_backbone(checkpoint, out_type='featmap', out_indices=(1, 2))
    args = type('Args', (), dict(img_size=96))
    (image, tall), maps, even_maps = tool.compute_maps(model, images, args)
    stage2, stage3 = (column[0] for column in maps)
    assert image.shape == (96, 144, 3) and stage2.shape == (12, 18, 24) and stage3.shape == (6, 9, 32)
    assert tall.shape == (192, 96, 3)
    loaded = Image.open(images[0]).resize((144, 96), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(loaded, np.float32))
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.no_grad():
        expected = model.backbone(((pixels - mean) / std).permute(2, 0, 1)[None])
    # Pixels are resized by PyTorch, and rounded otherwise.
    torch.testing.assert_close(image, pixels / 255, rtol=0, atol=1.01 / 255)
    torch.testing.assert_close(stage3, expected[1][0].permute(1, 2, 0), rtol=0.01, atol=0.01)
    with torch.no_grad():
        of_even = model.backbone(torch.zeros(1, 3, 96, 144))
    torch.testing.assert_close(even_maps[1][0], of_even[1][0].permute(1, 2, 0))


def test_what_an_even_image_has_too_is_taken_off(tool):
    """The components are those of the directions of the rest."""
    rng = np.random.default_rng(0)
    position, content = 10 * rng.normal(size=(4, 5, 8)), rng.normal(size=(2, 4, 5, 8))
    maps, even_maps = list(torch.from_numpy(position + content)), [torch.from_numpy(position)] * 2
    pictures, told = tool.to_pictures(maps, even_maps)
    assert re.match(r'99 % of the variance is in an even image too; of the directions of the rest the three', told)
    rest = content.reshape(-1, 8)
    rest = rest / np.linalg.norm(rest, axis=1, keepdims=True)
    projections, _ = tool.principal_components(torch.from_numpy(rest))
    expected = tool.to_colours(projections).reshape(2, 4, 5, 3)
    torch.testing.assert_close(torch.stack(pictures), expected)
    raw, told = tool.to_pictures(maps)
    assert told.startswith('the three components have') and not torch.allclose(torch.stack(raw), expected, atol=0.1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--checkpoint', 'missing.pth'), "No such file or directory: 'missing.pth'"),
        (('--img-size', 40), '--img-size is 40; give a multiple of 16.'),
        (('--out', 'features.xyz'), "'xyz' is not supported"),
        (('damaged.png',), 'damaged.png'),
    ],
)
def test_faults_are_told_in_one_line(tool, checkpoint, images, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'damaged.png').write_bytes(images[0].read_bytes()[:1000])
    command = (*images, '--checkpoint', checkpoint, '--out', 'features.png', '--device', 'cpu')
    # A name of an image comes before the options.
    command = (*options, *command) if len(options) == 1 else (*command, *options)
    error = run_main(tool, monkeypatch, *command)
    assert error.startswith('Error: no picture was made: ') and message in error
    assert not list(tmp_path.glob('*features*'))
