"""A set of videos whose classes are motions."""

from collections import Counter

import cv2
import numpy as np
import pytest
from helpers import run_script
from PIL import Image

from mmconvmae.datasets import VideoFile

SCRIPT = 'tools/dataset_converters/moving_photographs.py'
CLASSES = ['left', 'right', 'up', 'down', 'nearer', 'farther', 'clockwise', 'counterclockwise']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('moving')
    (root / 'photographs').mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = rng.integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(root / 'photographs' / f'{i}.png')
    for out in ('a', 'b'):
        run = run_script(SCRIPT, str(root / 'photographs'), str(root / out), '--clips-per-class', '3')
        assert run.returncode == 0, run.stderr
    return root


def test_list_has_each_class_as_often(made):
    lines = [line.split(' ') for line in (made / 'a' / 'list.txt').read_text().splitlines()]
    assert Counter(int(label) for _, label in lines) == dict.fromkeys(range(8), 3)
    assert (made / 'a' / 'classes.txt').read_text().split() == CLASSES
    assert all(name.startswith(CLASSES[int(label)] + '_') for name, label in lines)


def test_the_same_seed_gives_the_same_videos(made):
    for name in ('left_0001.mp4', 'clockwise_0002.mp4'):
        one, other = (VideoFile(str(made / out / name)).read(range(16)) for out in 'ab')
        assert one.shape == (16, 96, 96, 3) and (one == other).all()


@pytest.mark.parametrize('number', range(3))
@pytest.mark.parametrize('name', CLASSES)
def test_what_moves_is_what_the_class_says(made, name, number):
    """OpenCV's registration of one frame to a later one finds the motion of the window."""
    frames = VideoFile(str(made / 'a' / f'{name}_{number:04}.mp4')).read([7, 8])
    first, second = (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames)
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 300, 1e-6)
    # From a pixel of the second frame to the place in the first that shows the same.
    _, warp = cv2.findTransformECC(second, first, warp, cv2.MOTION_AFFINE, stop, None, 5)
    scale = np.sqrt(np.linalg.det(warp[:, :2]))
    angle = np.arctan2(warp[1, 0], warp[0, 0])
    moved = warp @ [47.5, 47.5, 1] - 47.5  # of the window's middle
    found = dict(
        left=-moved[0], right=moved[0], up=-moved[1], down=moved[1], nearer=100 * -np.log(scale),
        farther=100 * np.log(scale), clockwise=60 * angle, counterclockwise=60 * -angle,
    )  # fmt: skip
    assert max(found, key=found.get) == name


def test_faults_have_their_sentence(made, tmp_path):
    (tmp_path / 'empty').mkdir()
    for words, said in (
        ((made / 'photographs', made / 'a'), 'is there already'),
        ((tmp_path / 'gone', tmp_path / 'out'), 'There is no folder'),
        ((tmp_path / 'empty', tmp_path / 'out'), 'there is no photograph'),
    ):
        run = run_script(SCRIPT, *map(str, words))
        assert run.returncode == 1 and said in run.stderr and 'Traceback' not in run.stderr
    assert not (tmp_path / 'out').exists()
