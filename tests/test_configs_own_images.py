"""The template for people's own images, copied and changed as they do it."""

import numpy as np
import pytest
import tifffile
import torch
from helpers import ROOT, copy_template
from mmengine.config import Config
from PIL import Image

from mmconvmae.registry import MODELS
from mmconvmae.runner import ScheduleRunner

TEMPLATE = ROOT / 'configs' / 'own_images' / 'pretrain.py'
SMALL = dict(arch='tiny', img_size=(32, 48), batch_size=4, max_epochs=2)
RNG = np.random.default_rng(0)


def copy_small(path, **settings):
    return copy_template('pretrain', path, **SMALL | settings)


def train(path, work_dir, **options):
    config = Config.fromfile(path)
    config.merge_from_dict(dict(work_dir=str(work_dir), **options))
    config.train_dataloader.num_workers = 0
    config.experiment_name = str(work_dir).replace('/', '_')
    runner = ScheduleRunner.from_cfg(config)
    runner.train()
    assert runner.epoch == config.max_epochs
    assert all(weight.isfinite().all() for weight in runner.model.state_dict().values())
    return runner


def write_tiffs(folder, array, **kwargs):
    for index in range(6):
        tifffile.imwrite(folder / f'{index}.tiff', (array * (index + 1)).astype(array.dtype), **kwargs)


def bands(channels, dtype, largest):
    return (RNG.random((50, 60, channels)) * largest / 6).astype(dtype)


def grey_16_bit(folder):
    for index in range(6):
        Image.fromarray((RNG.random((50, 60)) * 60000).astype(np.uint16)).save(folder / f'{index}.png')
    return dict(in_channels=1, mean=[30000.0], std=[17000.0])


def four_channels_of_uint16(folder):
    write_tiffs(folder, bands(4, np.uint16, 10000), photometric='minisblack', planarconfig='contig')
    return dict(in_channels=4, mean=[3000.0] * 4, std=[2000.0] * 4)


def six_bands(folder):
    write_tiffs(folder, bands(6, np.uint8, 255), photometric='minisblack', planarconfig='contig')
    return dict(in_channels=6, mean=[70.0] * 6, std=[50.0] * 6)


def floats_with_gaps(folder):
    array = bands(1, np.float32, 1)
    array[3, 4] = np.nan
    write_tiffs(folder, array)
    return dict(in_channels=1, mean=[0.3], std=[0.2])


def rgba(folder):
    for index in range(6):
        Image.fromarray(bands(4, np.uint8, 1500)).save(folder / f'{index}.png')
    return dict(in_channels=4, mean=[120.0] * 4, std=[70.0] * 4)


def webp_and_tiff(folder):
    for index in range(6):
        Image.fromarray(bands(3, np.uint8, 1500)).save(folder / f'{index}{(".webp", ".tiff")[index % 2]}')
    return {}


def eight_and_sixteen_bits(folder):
    grey_16_bit(folder)
    Image.fromarray(bands(3, np.uint8, 1500)).save(folder / 'x.jpg')
    return dict(full_scale=255)


def damaged(folder):
    webp_and_tiff(folder)
    for index in range(5):
        (folder / f'damaged {index}.png').write_bytes(b'\x89PNG')
    return dict(skip_damaged=True)


def one_image(folder):
    Image.fromarray(bands(3, np.uint8, 1500)).save(folder / 'ein Bild, blüte 花.jpg')
    return dict(batch_size=1)


@pytest.mark.parametrize(
    'make',
    [
        grey_16_bit,
        four_channels_of_uint16,
        six_bands,
        floats_with_gaps,
        rgba,
        webp_and_tiff,
        eight_and_sixteen_bits,
        damaged,
        one_image,
    ],
)
def test_two_epochs(tmp_path, make):
    folder = tmp_path / 'my images'
    folder.mkdir()
    settings = make(folder)
    (tmp_path / 'link').symlink_to(folder)
    held_out = None if make is damaged else str(folder)
    path = copy_small(tmp_path / 'my.py', data_root=f'{tmp_path}/link/', held_out_root=held_out, **settings)
    runner = train(path, tmp_path / 'work')
    assert (tmp_path / 'work' / 'reconstructions' / 'epoch_2.png').exists() == (held_out is not None)
    assert runner.model.backbone.in_channels == settings.get('in_channels', 3)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(in_channels=4), r'has 3 channels where in_channels is 4; set in_channels=3'),
        (
            dict(mean=[1.0], std=[1.0]),
            r'The images have 3 channels, and mean of the data preprocessor 1; give one value',
        ),
        (dict(mean=[1.0]), r'mean has 1 values and std 3'),
        (dict(std=[1.0, 0.0, 1.0]), r'std is \[1\.0, 0\.0, 1\.0\]; give positive values'),
        (dict(data_root='nowhere'), r'There is no folder nowhere'),
        (dict(held_out_root='nowhere'), r'There is no folder nowhere'),
    ],
)
def test_faults_are_one_sentence(tmp_path, settings, message):
    (tmp_path / 'images').mkdir()
    webp_and_tiff(tmp_path / 'images')
    path = copy_small(tmp_path / 'my.py', **(dict(data_root=str(tmp_path / 'images')) | settings))
    with pytest.raises((OSError, ValueError), match=message):
        train(path, tmp_path / 'work')


def test_values_that_do_not_fit_the_mean(tmp_path):
    (tmp_path / 'images').mkdir()
    grey_16_bit(tmp_path / 'images')
    path = copy_small(tmp_path / 'my.py', data_root=str(tmp_path / 'images'))
    with pytest.raises(
        ValueError, match=r'The images have values of .* do not fit; give them in the units of the files'
    ):
        train(path, tmp_path / 'work')


def test_a_setting_that_would_have_no_effect_is_refused(tmp_path):
    path = copy_small(tmp_path / 'my.py')
    with pytest.raises(ValueError, match=r"data_root was set to 'x' from outside .* copy that file and set it there"):
        train(path, tmp_path / 'work', data_root='x')
    (tmp_path / 'child.py').write_text("_base_ = './my.py'\nin_channels = 1\n")
    with pytest.raises(ValueError, match='in_channels was set to 1 from outside'):
        train(tmp_path / 'child.py', tmp_path / 'work')


def test_load_from_with_resume_is_refused(tmp_path):
    path = copy_small(tmp_path / 'my.py')
    with pytest.raises(ValueError, match=r"load_from='ours\.pth' with resume=True would go on with .* resume=False"):
        train(path, tmp_path / 'work', load_from='ours.pth')


def test_begins_with_weights(tmp_path):
    (tmp_path / 'images').mkdir()
    webp_and_tiff(tmp_path / 'images')
    settings = dict(data_root=str(tmp_path / 'images'), base_lr=0.0)
    model = MODELS.build(Config.fromfile(copy_small(tmp_path / 'my.py', **settings)).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'ours.pth')
    path = copy_small(tmp_path / 'my.py', pretrained=str(tmp_path / 'ours.pth'), **settings)
    trained = train(path, tmp_path / 'work').model.state_dict()
    assert all(torch.equal(trained[name], weight) for name, weight in model.state_dict().items())


def test_opens_with_what_one_changes():
    screen = TEMPLATE.read_text().splitlines()[:18]
    names = ('data_root', 'arch', 'img_size', 'in_channels', 'mean', 'std', 'batch_size', 'max_epochs', 'base_lr')
    for name in names:
        (line,) = [line for line in screen if line.startswith(f'{name} = ')]
        assert '  # ' in line or name in ('std', 'max_epochs')
