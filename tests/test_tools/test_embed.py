import csv

import numpy as np
import pytest
import torch
from helpers import import_script, run_main, write_config
from mmengine.config import Config
from mmpretrain import FeatureExtractor
from PIL import Image

# In the order of a sorted list; tests that need a damaged one damage DAMAGED.
NAMES = ['a folder/deeper/three, "four".jpg', 'a folder/ä ö.png', 'two.png', 'één.jpg']
DAMAGED = 1


@pytest.fixture(scope='module')
def tool():
    return import_script('tools/analysis_tools/embed.py')


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'my images'
    for i, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70 + 9 * i, 80, 3), np.uint8)).save(path)
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def checkpoint(small_config, build, tmp_path):
    """A checkpoint of pretraining with its config."""
    model = build(small_config)
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], to_rgb=True)
    config = Config(dict(model=small_config, data_preprocessor=preprocessor))
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=config.pretty_text)), path)
    return path


def extract(checkpoint, small_arch, tmp_path, paths):
    """The features by mmpretrain's interface, in the test pipeline of a classifier."""
    config = write_config(
        tmp_path / 'classifier.py',
        f"""
        custom_imports = dict(imports=['mmconvmae'])
        default_scope = 'mmpretrain'
        data_preprocessor = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], to_rgb=True)
        model = dict(
            type='ImageClassifier',
            backbone=dict(type='mmconvmae.ConvViT', arch={small_arch!r}, img_size=64),
        )
        test_dataloader = dict(
            dataset=dict(
                type='CustomDataset',
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='ResizeEdge', scale=73, edge='short', backend='pillow', interpolation='bicubic'),
                    dict(type='CenterCrop', crop_size=64),
                    dict(type='PackInputs'),
                ]
            )
        )
        """,
    )
    extractor = FeatureExtractor(str(config), pretrained=str(checkpoint), device='cpu')
    return np.stack([feats[-1].numpy() for feats in extractor([str(path) for path in paths], stage='backbone')])


def test_command_gives_what_mmpretrain_gives(run_tool, folder, checkpoint, small_arch, tmp_path):
    npz, table = tmp_path / 'new' / 'features.npz', tmp_path / 'new' / 'table.csv'
    options = ('--device', 'cpu', '--batch-size', 3, '--workers', 2)
    result = run_tool('analysis_tools/embed.py', folder, '--checkpoint', checkpoint, '--out', npz, table, *options)
    assert result.returncode == 0, result.stderr
    assert 'Mean and deviation of the pixels are those of the config of the checkpoint.' in result.stdout
    assert f'4 x 32 features are in {npz} and {table}' in result.stdout and 'ETA' in result.stdout
    arrays = np.load(npz)
    assert arrays['paths'].tolist() == NAMES and arrays['features'].dtype == np.float32
    pngs = [name for name in NAMES if name.endswith('png')]
    expected = extract(checkpoint, small_arch, tmp_path, [folder / name for name in pngs])
    of_pngs = arrays['features'][[name in pngs for name in NAMES]]
    np.testing.assert_allclose(of_pngs, expected, atol=5e-3)  # pixels are resized by PyTorch, and rounded otherwise
    with table.open(newline='', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    assert header == ['path', *(f'f{i}' for i in range(32))]
    assert [name for name, *_ in rows] == NAMES
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), arrays['features'])


def test_damaged_images(tool, folder, checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'features.npz'
    command = (folder, '--checkpoint', checkpoint, '--out', out, '--device', 'cpu', '--workers', 1, '--batch-size', 2)
    assert run_main(tool, monkeypatch, *command) is None
    whole = np.load(out)['features']
    path = folder / NAMES[DAMAGED]
    path.write_bytes(path.read_bytes()[:5000])
    out.unlink()
    error = run_main(tool, monkeypatch, *command)
    assert 'ö.png' in error and error.endswith('Or leave such images out: --skip-damaged.') and '\n' not in error
    assert not list(tmp_path.glob('*features*'))
    capsys.readouterr()
    assert run_main(tool, monkeypatch, *command, '--skip-damaged') is None
    printed = capsys.readouterr().out
    assert 'ö.png' in printed and '3 x 32 features' in printed and 'Left out: 1.' in printed
    arrays = np.load(out)
    assert arrays['paths'].tolist() == NAMES[:DAMAGED] + NAMES[DAMAGED + 1 :]
    np.testing.assert_allclose(arrays['features'], np.delete(whole, DAMAGED, 0), rtol=1e-5, atol=1e-6)
    for name in NAMES:
        (folder / name).write_bytes(b'nothing')
    out.unlink()
    assert 'None of the 4 images can be used.' in run_main(tool, monkeypatch, *command, '--skip-damaged')
    assert not out.exists()


def test_other_sizes(tool, folder, checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'features.npz'
    command = (folder, '--checkpoint', checkpoint, '--out', out, '--device', 'cpu', '--workers', 0)
    features = {}
    for size in ((), ('--img-size', 64), ('--img-size', 32, 64), ('--short-edge', 64)):
        assert run_main(tool, monkeypatch, *command, *size) is None
        features[size] = np.load(out)['features']
    usual, square, wide, narrow = features.values()
    np.testing.assert_array_equal(usual, square)
    assert not np.allclose(usual, wide) and not np.allclose(usual, narrow)
    assert 'as crops of 32 x 64, on cpu' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--out', 'features.txt'), '--out is features.txt; give files that end in .npz or .csv.'),
        (('--checkpoint', 'missing.pth'), "No such file or directory: 'missing.pth'"),
        (('--img-size', 60), r'--img-size is [60]; give one or two multiples of 16.'),
        (('--img-size', 64, '--short-edge', 63), '--short-edge is 63, and the crop 64 x 64; give no less than that.'),
        (('--batch-size', 0), '--batch-size has to be at least 1'),
        (('--device', 'nonsense'), 'The device nonsense cannot be used'),
    ],
)
def test_faults_are_told_in_one_line(tool, folder, checkpoint, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    error = run_main(tool, monkeypatch, folder, '--checkpoint', checkpoint, '--out', 'features.npz', *options)
    assert error.startswith('Error: no features were written: ') and message in error and '\n' not in error
    assert not list(tmp_path.glob('*features*'))


def test_folder_without_images(tool, checkpoint, tmp_path, monkeypatch):
    empty = tmp_path / 'empty'
    empty.mkdir()
    (empty / 'notes.txt').write_text('no image')
    error = run_main(tool, monkeypatch, empty, '--checkpoint', checkpoint, '--out', tmp_path / 'features.npz')
    assert 'empty holds no images but 1 other files.' in error


def test_weights_that_are_not_finite(tool, folder, checkpoint, tmp_path, monkeypatch):
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict']['backbone.stages.0.patch_embed.projection.bias'][0] = torch.nan
    torch.save(content, checkpoint)
    out = tmp_path / 'features.csv'
    error = run_main(tool, monkeypatch, folder, '--checkpoint', checkpoint, '--out', out, '--device', 'cpu')
    assert 'The features are not finite' in error and not out.exists()


def test_depths_that_are_mixed(tool, folder, checkpoint, tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 65536, (70, 80), np.uint16)
    Image.fromarray(pixels).save(folder / 'deep.png')
    out = tmp_path / 'features.npz'
    command = (folder, '--checkpoint', checkpoint, '--out', out, '--device', 'cpu', '--workers', 0)
    error = run_main(tool, monkeypatch, *command)
    assert 'deep.png have different depths' in error or 'deep.png and' in error
    assert run_main(tool, monkeypatch, *command, '--full-scale', 255) is None
    assert len(np.load(out)['features']) == len(NAMES) + 1
