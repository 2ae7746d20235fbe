import csv

import cv2
import numpy as np
import pytest
import torch
from helpers import import_script, run_main, write_config
from mmengine.config import Config
from mmpretrain import FeatureExtractor
from PIL import Image

from mmconvmae.registry import MODELS

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
    assert 'ö.png' in error and error.endswith('Or leave such files out: --skip-damaged.') and '\n' not in error
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
    assert 'None of the 4 files can be used.' in run_main(tool, monkeypatch, *command, '--skip-damaged')
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
        (('--batch-size', 0), '--batch-size and --views have to be at least 1'),
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


class TestVideos:
    """A checkpoint of clips, and a folder of videos of other lengths and wider than high."""

    BACKBONE = dict(type='mmconvmae.VideoConvViT', arch='tiny', img_size=32, num_frames=4)

    @pytest.fixture
    def videos(self, tmp_path):
        folder = tmp_path / 'my videos'
        folder.mkdir()
        rng = np.random.default_rng(0)
        for name, num_frames in (('a.avi', 12), ('b.avi', 30), ('c.avi', 3)):
            writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*'MJPG'), 10, (44, 32))
            for _ in range(num_frames):
                writer.write(rng.integers(0, 256, (8, 11, 3), np.uint8).repeat(4, 0).repeat(4, 1))
            writer.release()
        (folder / 'notes.txt').write_text('no video')
        return folder

    @pytest.fixture
    def backbone(self):
        torch.manual_seed(0)
        backbone = MODELS.build(dict(self.BACKBONE, out_type='avg_featmap'))
        backbone.init_weights()
        return backbone.eval()

    def save(self, backbone, path, **sampler):
        config = Config(
            dict(
                model=dict(type='VideoClassifier', backbone=self.BACKBONE),
                data_preprocessor=dict(type='mmconvmae.ClipDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3),
                train_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadClip', sampler=sampler)])),
            )
        )
        state_dict = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
        torch.save(dict(state_dict=state_dict, meta=dict(cfg=config.pretty_text)), path)
        return path

    def expected(self, backbone, path, *clips):
        """Features of clips whose frames are named by number, read with OpenCV one by one, on average."""
        capture, frames = cv2.VideoCapture(str(path)), []
        while (frame := capture.read())[0]:
            frames.append(frame[1][:, 6:38, ::-1])
        clips = np.stack([[frames[min(i, len(frames) - 1)] for i in clip] for clip in clips])
        with torch.no_grad():
            pixels = (torch.from_numpy(clips).float() - 100) / 50  # (views, T, H, W, C)
            return backbone(pixels.permute(0, 4, 1, 2, 3))[0].mean(0).numpy()

    def embed(self, tool, monkeypatch, videos, checkpoint, *options):
        out = checkpoint.parent / 'features.npz'
        command = (videos, '--checkpoint', checkpoint, '--out', out, '--device', 'cpu', '--workers', 0, *options)
        error = run_main(tool, monkeypatch, *command)
        return error or np.load(out)

    def test_the_middle_clip(self, tool, videos, backbone, tmp_path, monkeypatch, capsys):
        checkpoint = self.save(backbone, tmp_path / 'dense.pth', type='mmconvmae.DenseClip', frame_interval=3)
        found = self.embed(tool, monkeypatch, videos, checkpoint)
        assert found['paths'].tolist() == ['a.avi', 'b.avi', 'c.avi']
        assert (
            '3 videos in' in (said := capsys.readouterr().out)
            and '4 frames of the middle of the video, 3 from one to the next' in said
        )
        # Of 30 frames every third: 0, 3 ... 27, of whose ten the middle four; of 3 frames the first alone.
        for features, name, clip in zip(found['features'], 'abc', ((0, 3, 6, 9), (9, 12, 15, 18), (0, 0, 0, 0))):
            expected = self.expected(backbone, videos / f'{name}.avi', clip)
            np.testing.assert_allclose(features, expected, atol=1e-4)

    def test_views_of_segments(self, tool, videos, backbone, tmp_path, monkeypatch):
        checkpoint = self.save(backbone, tmp_path / 'segments.pth', type='mmconvmae.SegmentClip')
        found = self.embed(tool, monkeypatch, videos, checkpoint, '--views', 2, '--batch-size', 2)
        # Eighths of 12 frames begin with the frames 0, 1, 3, 4, 6, 7, 9, 10.
        expected = self.expected(backbone, videos / 'a.avi', (0, 3, 6, 9), (1, 4, 7, 10))
        np.testing.assert_allclose(found['features'][0], expected, atol=1e-4)

    def test_what_is_wrong_is_said(self, tool, videos, backbone, folder, checkpoint, tmp_path, monkeypatch):
        of_clips = self.save(backbone, tmp_path / 'dense.pth', type='mmconvmae.DenseClip')
        assert 'holds no videos but' in self.embed(tool, monkeypatch, folder, of_clips)
        assert 'a model of images; leave it out' in self.embed(tool, monkeypatch, folder, checkpoint, '--views', 2)
        (videos / 'b.avi').write_bytes(b'RIFF')
        assert 'b.avi cannot be opened as a video' in self.embed(tool, monkeypatch, videos, of_clips)
        found = self.embed(tool, monkeypatch, videos, of_clips, '--skip-damaged')
        assert found['paths'].tolist() == ['a.avi', 'c.avi']
        torch.save(dict(state_dict=torch.load(of_clips)['state_dict']), tmp_path / 'bare.pth')
        assert 'does not tell how long they are' in self.embed(tool, monkeypatch, videos, tmp_path / 'bare.pth')
