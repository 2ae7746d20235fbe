"""From video files to batches of clips."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import load as load_config
from helpers import names_in
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope
from mmpretrain.registry import BATCH_AUGMENTS, TRANSFORMS

from mmconvmae.datasets import DenseClip, DenseViews, SegmentClip, SegmentViews, VideoFile, VideoFileError, VideoList
from mmconvmae.datasets.video_file import DECODERS
from mmconvmae.registry import DATASETS, MODELS


def write_video(path, num_frames=24, size=(48, 64), codec='MJPG'):
    """A video whose frame i has the grey value 10 * i in its left half, and 255 - 10 * i in the right one."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, size[::-1])
    for i in range(num_frames):
        frame = np.full((*size, 3), 10 * i, np.uint8)
        frame[:, size[1] // 2 :] = 255 - 10 * i
        writer.write(frame)
    writer.release()
    return str(path)


def greys(frames):
    return [round(float(frame[:, : frame.shape[1] // 2].mean()) / 10) for frame in frames]


@pytest.fixture(params=DECODERS)
def decoder(request):
    if request.param != 'opencv':
        pytest.importorskip(request.param, reason=f'{request.param} is not installed')
    return request.param


class TestVideoFile:
    def test_gives_the_frames_asked_for(self, tmp_path, decoder):
        file = VideoFile(write_video(tmp_path / 'a.avi'), decoder)
        assert file.num_frames == 24
        frames = file.read([3, 0, 23, 3])
        assert frames.shape == (4, 48, 64, 3) and frames.dtype == np.uint8
        assert greys(frames) == [3, 0, 23, 3]

    def test_blue_comes_first(self, tmp_path, decoder):
        writer = cv2.VideoWriter(str(tmp_path / 'a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
        writer.write(np.full((48, 64, 3), (250, 20, 20), np.uint8))
        writer.release()
        blue, green, red = VideoFile(str(tmp_path / 'a.avi'), decoder).read([0])[0].mean((0, 1))
        assert blue > 200 > 60 > max(green, red)

    def test_a_wrong_number_of_frames_is_found_out(self, tmp_path, decoder):
        whole = Path(write_video(tmp_path / 'a.mkv')).read_bytes()
        (tmp_path / 'cut.mkv').write_bytes(whole[: len(whole) * 2 // 3])
        file = VideoFile(str(tmp_path / 'cut.mkv'), decoder)
        if decoder == 'opencv':
            assert file.num_frames == 24  # as the container says
        if file.num_frames > 20 or not file.num_frames:
            assert file.read([2**31]) is None
        assert 8 < file.num_frames < 20
        assert greys(file.read([0, 8])) == [0, 8]
        step = TRANSFORMS.build(load('DenseViews', num_frames=4, frame_interval=1, num_clips=2))
        step.decoder = decoder
        assert greys(step(dict(img_path=file.path))['imgs'])[:4] == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        ('content', 'said'), [(b'', 'is empty'), (b'no video at all, but text' * 99, 'cannot be opened as a video')]
    )
    def test_what_is_no_video_is_named(self, tmp_path, decoder, content, said):
        path = tmp_path / 'bad.mp4'
        path.write_bytes(content)
        with pytest.raises(VideoFileError, match=rf'bad\.mp4 .*{said}|bad\.mp4 {said}'):
            VideoFile(str(path), decoder)

    def test_a_file_with_sound_alone_is_named(self, tmp_path, decoder):
        av = pytest.importorskip('av', reason='av, which writes the file, is not installed')
        path = str(tmp_path / 'sound.mkv')
        with av.open(path, 'w') as container:
            stream = container.add_stream('pcm_s16le', rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format='s16', layout='mono')
            frame.sample_rate = 8000
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
        with pytest.raises(VideoFileError, match='sound alone'):
            VideoFile(path, decoder)

    def test_a_missing_file_or_decoder_is_named(self, tmp_path):
        with pytest.raises(VideoFileError, match=r'There is no video .*gone\.mp4'):
            VideoFile(str(tmp_path / 'gone.mp4'))
        with pytest.raises(ValueError, match=r'`decoder` is .* choose one of opencv, av, decord'):
            VideoFile(write_video(tmp_path / 'a.avi'), 'ffmpeg')

    @pytest.mark.parametrize(('matrix', 'quarters'), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
    def test_a_video_of_a_phone_is_upright(self, tmp_path, decoder, matrix, quarters):
        path = Path(write_video(tmp_path / 'a.mp4', codec='mp4v'))
        upright = VideoFile(str(path), decoder).read([3]).astype(int)
        # The box tkhd of MP4 has the matrix by which a point of the picture is to be moved, as 16.16 fixed point: after
        # the box's name 4 bytes of version and flags, 20 of times and the like, 16 of layer and volume.
        content = bytearray(path.read_bytes())
        place = content.index(b'tkhd') + 4 + 4 + 20 + 16
        a, b, c, d = (value << 16 for value in matrix)
        content[place : place + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
        (tmp_path / 'turned.mp4').write_bytes(content)
        turned = VideoFile(str(tmp_path / 'turned.mp4'), decoder).read([3]).astype(int)
        expected = np.rot90(upright, quarters, axes=(1, 2))
        assert turned.shape == expected.shape
        assert np.abs(turned - expected).max() <= 2


def test_decoders_agree_on_a_compressed_video(tmp_path):
    for name in ('av', 'decord'):
        pytest.importorskip(name, reason=f'{name} is not installed')
    path = write_video(tmp_path / 'a.mp4', codec='mp4v')
    frames = [VideoFile(path, name).read([0, 7, 23]).astype(int) for name in DECODERS]
    assert max(np.abs(frames[0] - other).max() for other in frames[1:]) <= 2


class TestSamplers:
    def test_dense(self):
        assert DenseClip(4, 3)(10).tolist() == [[0, 3, 6, 9]]
        assert DenseClip(4, 3)(7).tolist() == [[0, 3, 6, 6]]  # too short: the last is repeated
        starts = {DenseClip(4, 3)(12)[0, 0] for _ in range(100)}
        assert starts == {0, 1, 2}

    def test_segments(self):
        drawn = np.concatenate([SegmentClip(4)(12) for _ in range(300)])
        assert [sorted(set(column)) for column in drawn.T.tolist()] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
        assert SegmentClip(4)(1).tolist() == [[0, 0, 0, 0]]

    def test_dense_views(self):
        # Of 40 frames every fourth: 0, 4 ... 36. Clips of 4 of these ten start at the 0th, 3rd and 6th of them.
        assert DenseViews(4, 4, 3)(40).tolist() == [[0, 4, 8, 12], [12, 16, 20, 24], [24, 28, 32, 36]]
        assert DenseViews(4, 4, 2)(10).tolist() == [[0, 4, 8, 8], [0, 4, 8, 8]]
        assert DenseViews(4, 4, 1)(40).tolist() == [[12, 16, 20, 24]]

    def test_segment_views(self):
        # Segments of 8 frames: their starts, and their middles.
        assert SegmentViews(4, 2)(32).tolist() == [[0, 8, 16, 24], [4, 12, 20, 28]]
        assert SegmentViews(4, 2)(4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]

    @pytest.mark.parametrize('sampler', [DenseClip, SegmentClip, DenseViews, SegmentViews])
    def test_a_wrong_value_is_named(self, sampler):
        with pytest.raises(ValueError, match='num_frames'):
            sampler(num_frames=0)


class TestVideoList:
    def test_list_with_classes_blanks_and_without(self, tmp_path):
        for name in ('a b.avi', 'c.avi'):
            write_video(tmp_path / name, 2)
        (tmp_path / 'list.txt').write_text('a b.avi 1\n\nc.avi 0\n')
        samples = VideoList(tmp_path, 'list.txt')
        assert [samples[i]['gt_label'] for i in range(2)] == [1, 0]
        assert samples[0]['img_path'] == str(tmp_path / 'a b.avi')
        (tmp_path / 'list.txt').write_text('c.avi\na b.avi\n')
        assert 'gt_label' not in VideoList(tmp_path, 'list.txt')[0]

    def test_folder(self, tmp_path):
        (tmp_path / 'deep').mkdir()
        write_video(tmp_path / 'deep' / 'a.AVI', 2)
        (tmp_path / 'notes.txt').write_text('no video')
        samples = VideoList(tmp_path)
        assert len(samples) == 1 and samples[0]['img_path'].endswith('a.AVI')

    @pytest.mark.parametrize(
        ('lines', 'said'),
        [
            ('a.avi 0\nb.avi\n', 'Line 2 .* has no class'),
            ('a.avi\nb.avi 1\n', 'Line 2 .* has a class'),
            ('a.avi 5\n', 'the class 5, and there are 2 classes'),
            ('a.avi -1\n', 'number the classes from 0'),
            ('gone.avi 0\n', 'gone.avi, is not there'),
            ('', '0 videos are listed'),
        ],
    )
    def test_a_bad_list_is_named(self, tmp_path, lines, said):
        write_video(tmp_path / 'a.avi', 2)
        (tmp_path / 'list.txt').write_text(lines)
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            VideoList(tmp_path, 'list.txt', metainfo=dict(classes=('x', 'y')))

    def test_damaged_videos_stop_the_run_or_are_left_out(self, tmp_path):
        write_video(tmp_path / 'a.avi', 8)
        (tmp_path / 'b.avi').write_bytes(b'')
        load = [dict(type='mmconvmae.LoadClip', sampler=dict(type='mmconvmae.DenseClip', num_frames=4))]
        with pytest.raises(VideoFileError, match=r'b\.avi is empty'):
            VideoList(tmp_path, pipeline=load)[1]
        assert VideoList(tmp_path, pipeline=load, skip_damaged=True)[1]['img_path'].endswith('a.avi')


def build_pipeline(*steps):
    init_default_scope('mmpretrain')
    return Compose([TRANSFORMS.build(step) for step in steps])


def broadcast(*transforms):
    return dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
        transforms=list(transforms),
    )


def load(sampler, **kwargs):
    return dict(type='mmconvmae.LoadClip', sampler=dict(type=f'mmconvmae.{sampler}', **kwargs))


class TestPipeline:
    def test_augmentation_is_the_same_for_all_frames(self, tmp_path):
        # All frames are alike, so that they stay alike if and only if the same is done to each.
        still = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        pipeline = build_pipeline(
            broadcast(
                dict(type='mmconvmae.MultiScaleCrop', scale=32),
                dict(type='RandomFlip', prob=0.5),
                dict(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9),
            ),
            dict(type='mmconvmae.FormatClips'),
            dict(type='PackInputs'),
        )
        seen = set()
        for _ in range(8):
            packed = pipeline(dict(imgs=[still] * 6, num_clips=1, gt_label=3, img_path='a.avi'))
            clip = packed['inputs']  # (C, T, H, W)
            assert clip.shape == (3, 6, 32, 32) and (clip == clip[:, :1]).all()
            assert packed['data_samples'].gt_label.tolist() == [3] and packed['data_samples'].img_path == 'a.avi'
            seen.add(clip.sum().item())
        assert len(seen) > 4

    def test_crops_of_several_scales(self):
        crop = TRANSFORMS.build(dict(type='mmconvmae.MultiScaleCrop', scale=16))
        crops = {crop.rand_crop_params(100, 200) for _ in range(2000)}
        sides = {(rows, columns) for _, _, rows, columns in crops}
        edges = [100, 87, 75, 66]
        assert sides == {(a, b) for i, a in enumerate(edges) for j, b in enumerate(edges) if abs(i - j) < 2}
        assert all(top + rows <= 100 and left + columns <= 200 for top, left, rows, columns in crops)
        places = {(top, left) for top, left, *sides in crops if sides == [66, 66]}
        assert len(places) == 13

    def test_views_of_a_test(self, tmp_path):
        path = write_video(tmp_path / 'a.avi', 24)
        results = build_pipeline(
            load('SegmentViews', num_frames=4, num_clips=2), dict(type='mmconvmae.ThreeCrop'), dict(type='PackInputs')
        ).transforms[:2]
        frames = results[1](results[0](dict(img_path=path)))
        clips = build_pipeline(dict(type='mmconvmae.FormatClips'), dict(type='PackInputs'))(frames)['inputs']
        assert clips.shape == (6, 3, 4, 48, 48)
        whole = VideoFile(path).read([0, 6, 12, 18, 3, 9, 15, 21]).reshape(2, 4, 48, 64, 3)
        expected = [clip[:, :, left : left + 48] for clip in whole for left in (0, 8, 16)]
        assert (clips.numpy() == np.stack(expected).transpose(0, 4, 1, 2, 3)).all()

    def test_short_video_is_used_and_said_once(self, tmp_path, monkeypatch):
        said = []
        monkeypatch.setattr('mmconvmae.datasets.clips.print_log', lambda text, **kwargs: said.append(text))
        step = TRANSFORMS.build(load('DenseClip', num_frames=4, frame_interval=4))
        path = write_video(tmp_path / 'a.avi', 6)
        for _ in range(2):
            assert greys(step(dict(img_path=path))['imgs']) == [0, 4, 5, 5]
        (text,) = said
        assert 'a.avi has 6 frames, and a clip goes over 13' in text

    def test_long_video_is_said_once_where_nothing_is_sought(self, tmp_path, monkeypatch, decoder):
        said = []
        monkeypatch.setattr('mmconvmae.datasets.clips.print_log', lambda text, **kwargs: said.append(text))
        monkeypatch.setattr('mmconvmae.datasets.clips.LONG', 20)
        step = TRANSFORMS.build(dict(load('DenseClip', num_frames=4, frame_interval=1), decoder=decoder))
        for name in ('a.avi', 'b.avi'):
            step(dict(img_path=write_video(tmp_path / name)))
        assert len(said) == (0 if decoder == 'decord' else 1)
        assert all('a.avi has 24 frames' in text and 'or cut' in text.lower() for text in said)

    def test_repeated_augmentation_decodes_once(self, tmp_path, monkeypatch):
        path = write_video(tmp_path / 'a.avi', 8)
        reads = []
        read = VideoFile.read
        monkeypatch.setattr(VideoFile, 'read', lambda self, indices: reads.append(0) or read(self, indices))
        init_default_scope('mmpretrain')
        clips = DATASETS.build(
            dict(
                type='mmconvmae.RepeatedAugmentation',
                dataset=dict(type='mmconvmae.VideoList', data_root=str(tmp_path), pipeline=[load('SegmentClip')]),
                pipeline=[
                    broadcast(dict(type='mmconvmae.MultiScaleCrop', scale=16)),
                    dict(type='mmconvmae.FormatClips'),
                    dict(type='PackInputs'),
                ],
                repeats=3,
            )
        )
        assert [clips[i]['inputs'].shape for i in range(3)] == [(3, 16, 16, 16)] * 3 and len(reads) == 1
        assert path


class TestPreprocessing:
    MEAN, STD = [10.0, 20.0, 30.0], [1.0, 2.0, 4.0]

    def build(self, **kwargs):
        return MODELS.build(dict(type='mmconvmae.ClipDataPreprocessor', mean=self.MEAN, std=self.STD, **kwargs))

    @pytest.mark.parametrize('views', [(), (2,)])
    def test_normalises_clips_and_views(self, views):
        clips = torch.randint(0, 255, (2, *views, 3, 4, 8, 8), dtype=torch.uint8)
        out = self.build()(dict(inputs=clips, data_samples=None))['inputs']
        axis = 1 + len(views)
        for channel in range(3):
            expected = (clips.select(axis, 2 - channel).float() - self.MEAN[channel]) / self.STD[channel]
            torch.testing.assert_close(out.select(axis, channel), expected)

    def test_cutmix_has_the_same_box_at_all_times(self):
        MODELS.build(dict(type='mmconvmae.ConvMAEPretrainHead', patch_size=16, in_channels=3))  # imports our models
        mix = BATCH_AUGMENTS.build(dict(type='ClipCutMix', alpha=1.0))
        for seed in range(5):
            np.random.seed(seed)
            torch.manual_seed(seed)
            clips = torch.arange(4.0).view(4, 1, 1, 1, 1).repeat(1, 3, 5, 16, 16)
            mixed, scores = mix.mix(clips.clone(), torch.eye(4))
            assert mixed.shape == clips.shape and (mixed == mixed[:, :1, :1]).all()
            share = (mixed == clips).float().mean((1, 2, 3, 4))
            other = scores.diagonal() < 1
            torch.testing.assert_close(scores.diagonal()[other], share[other])


def test_batch_goes_through_a_classifier_with_views(tmp_path):
    init_default_scope('mmpretrain')
    paths = [write_video(tmp_path / f'{i}.avi', 12) for i in range(2)]
    pipeline = build_pipeline(
        load('DenseViews', num_frames=4, frame_interval=2, num_clips=2),
        broadcast(dict(type='ResizeEdge', scale=32, edge='short')),
        dict(type='mmconvmae.ThreeCrop'),
        dict(type='mmconvmae.FormatClips'),
        dict(type='PackInputs'),
    )
    model = MODELS.build(
        dict(
            type='mmconvmae.VideoClassifier',
            backbone=dict(
                type='mmconvmae.VideoConvViT', arch='tiny', img_size=32, num_frames=4, out_type='avg_featmap'
            ),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=192),
            data_preprocessor=dict(type='mmconvmae.ClipDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3),
        )
    ).eval()
    batch = default_collate([pipeline(dict(img_path=path, gt_label=1)) for path in paths])
    assert batch['inputs'].shape == (2, 6, 3, 4, 32, 32)
    samples = model.test_step(batch)
    one_by_one = [
        model.head(model.extract_feat(model.data_preprocessor(dict(inputs=batch['inputs'][:, i]))['inputs'])).softmax(1)
        for i in range(6)
    ]
    expected = torch.stack(one_by_one).mean(0)
    torch.testing.assert_close(torch.stack([sample.pred_score for sample in samples]), expected)


@pytest.mark.parametrize('name', names_in('video', 'video/benchmarks'))
def test_pipelines_of_the_configs_take_a_video(tmp_path, name):
    config = load_config(name)
    size, num_frames = config.model.backbone.img_size, config.model.backbone.num_frames
    path = write_video(tmp_path / 'a.avi', 24, (72, 96))
    for part, views in (('train_dataloader', None), ('val_dataloader', 15 if 'k400' in name else 6)):
        if config.get(part) is not None:
            pipeline = build_pipeline(*config[part].dataset.pipeline)
            for _ in range(4):  # what is random is not always done
                clips = pipeline(dict(img_path=path, gt_label=0))['inputs']
                assert clips.shape == (*([views] if views else []), 3, num_frames, size, size)
