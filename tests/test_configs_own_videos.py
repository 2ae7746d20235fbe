"""The templates for people's own videos, copied and changed as they do it."""

import shutil
from argparse import Namespace

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, copy_template, import_script
from mmengine.config import Config
from mmengine.dataset import Compose
from sklearn.neighbors import KNeighborsClassifier

from mmconvmae.registry import MODELS
from mmconvmae.runner import ScheduleRunner

PRETRAIN = dict(arch='tiny', image_size=32, num_frames=4, frame_interval=2, mask_ratio=0.5, batch_size=3, max_epochs=2)
CLASSIFY = dict(
    arch='tiny', image_size=32, num_frames=4, frame_interval=2, classes=('still', 'turns'), batch_size=3, max_epochs=2
)
RNG = np.random.default_rng(0)


def write_video(path, num_frames=12, size=(40, 52)):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, size[::-1])
    frame = RNG.integers(0, 255, (*size, 3), dtype=np.uint8)
    for _ in range(num_frames):
        writer.write(frame)
        frame = np.ascontiguousarray(frame[::-1] if path.parent.name == 'turns' else frame)
    writer.release()


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Videos of different lengths and sizes, a folder for each class."""
    root = tmp_path_factory.mktemp('videos')
    for part, number in (('train', 3), ('val', 2)):
        for name in CLASSIFY['classes']:
            for i in range(number):
                write_video(root / part / name / f'{i}.mp4', 8 + 3 * i, (40, 52) if i else (64, 36))
    return root


@pytest.fixture
def videos(folders, tmp_path):
    return shutil.copytree(folders, tmp_path / 'videos')


def train(path, work_dir, **options):
    config = Config.fromfile(path)
    config.merge_from_dict(dict(work_dir=str(work_dir), **options))
    for part in ('train', 'val', 'test'):
        if f'{part}_dataloader' in config:
            config[f'{part}_dataloader'].num_workers = 0
    config.experiment_name = str(work_dir).replace('/', '_')
    runner = ScheduleRunner.from_cfg(config)
    runner.train()
    assert runner.epoch == config.max_epochs
    assert all(weight.isfinite().all() for weight in runner.model.state_dict().values())
    return runner


def as_lists(root):
    """Lists of the videos, and what says so in the template."""
    for part in ('train', 'val'):
        lines = [
            f'{name}/{path.name} {label}\n'
            for label, name in enumerate(CLASSIFY['classes'])
            for path in sorted((root / part / name).iterdir())
        ]
        (root / f'{part}.txt').write_text(''.join(lines))
    return dict(train_list='train.txt', val_list='val.txt', frame_interval=None, flip=False, views=1)


def with_all_augmentation(root):
    return dict(strong_augmentation=True, batch_size=2, num_frames=6, image_size=48)


def with_pyav(root):
    pytest.importorskip('av', reason='av is not installed')
    return dict(decoder='av', max_epochs=1)


@pytest.mark.parametrize('change', [as_lists, with_all_augmentation, with_pyav])
def test_pretrain_and_classify(videos, tmp_path, change):
    changed = change(videos)
    own = {name: value for name, value in (PRETRAIN | changed).items() if name in PRETRAIN | dict(decoder=0)}
    path = copy_template('pretrain_videos', tmp_path / 'pretrain.py', **own | dict(data_root=str(videos / 'train')))
    epochs = train(path, tmp_path / 'pretrain').epoch
    checkpoint = str(tmp_path / f'pretrain/epoch_{epochs}.pth')

    settings = CLASSIFY | changed | dict(data_root=str(videos), checkpoint=checkpoint)
    runner = train(copy_template('classify_videos', tmp_path / 'classify.py', **settings), tmp_path / 'classify')
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() >= 0
    # A test on its own begins from what training left.
    metrics = runner.test()
    assert 0 <= metrics['accuracy/top1'] <= 100


def copy_classify(videos, tmp_path, **settings):
    settings = CLASSIFY | dict(data_root=str(videos)) | settings
    return copy_template('classify_videos', tmp_path / 'classify.py', **settings)


def faults_of(path, tmp_path):
    with pytest.raises(ValueError) as caught:
        train(path, tmp_path / 'run')
    return str(caught.value)


def test_a_damaged_video_is_named_before_training(videos, tmp_path):
    (videos / 'train/still/1.mp4').write_bytes(b'')
    assert 'train/still/1.mp4 is empty (0 bytes)' in faults_of(copy_classify(videos, tmp_path), tmp_path)


def test_a_folder_that_is_no_class_is_named(videos, tmp_path):
    (videos / 'val/turns').rename(videos / 'val/turn')
    said = faults_of(copy_classify(videos, tmp_path), tmp_path)
    assert "there is no folder 'turns' (did you mean 'turn'?)" in said


def test_a_folder_of_images_is_not_taken_for_videos(videos, tmp_path):
    shutil.rmtree(videos / 'train/still')
    (videos / 'train/still').mkdir()
    cv2.imwrite(str(videos / 'train/still/a.png'), np.zeros((9, 9, 3), np.uint8))
    said = faults_of(copy_classify(videos, tmp_path), tmp_path)
    assert 'No video in' in said and 'add videos, or take folder and class out' in said


def test_a_size_that_the_stride_does_not_divide_is_named(videos, tmp_path):
    said = faults_of(copy_classify(videos, tmp_path, image_size=40), tmp_path)
    assert 'multiples of 16' in said


@pytest.mark.parametrize(('template', 'lines'), [('pretrain_videos', 20), ('classify_videos', 30)])
def test_opens_with_what_one_changes(template, lines):
    screen = (ROOT / 'configs' / 'own_images' / f'{template}.py').read_text().splitlines()
    rule = next(number for number, line in enumerate(screen) if line.startswith('# -----'))
    assert rule <= lines
    settings = Config.fromfile(ROOT / 'configs' / 'own_images' / f'{template}.py').settings
    names = [line.split(' = ')[0] for line in screen[:rule] if ' = ' in line and not line.startswith('#')]
    assert names == list(settings)


def test_nearest_neighbours_before_training(videos, tmp_path):
    """Against features computed one video at a time, and votes by scikit-learn."""
    tool = import_script('tools/analysis_tools/knn.py')
    path = copy_classify(videos, tmp_path, views=2)
    args = Namespace(config=path, cfg_options=None, neighbors=3, temperature=0.07, seed=0, device='cpu')
    accuracy, number = tool.knn_accuracy(args)
    assert number == 6

    config = Config.fromfile(path)
    torch.manual_seed(0)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    model.init_weights()
    model.eval()
    pipeline = Compose(config.test_dataloader.dataset.pipeline)
    features, labels = [], []
    for part in ('train', 'val'):
        for label, name in enumerate(CLASSIFY['classes']):
            for file in sorted((videos / part / name).iterdir()):
                clips = pipeline(dict(img_path=str(file), gt_label=label))['inputs']  # (views, C, T, H, W)
                assert len(clips) == 2 * 3
                with torch.no_grad():
                    clips = model.data_preprocessor(dict(inputs=clips))['inputs']
                    features.append(model.backbone(clips)[0].mean(0).double().numpy())
                labels.append(label)
    features, labels = np.stack(features), np.array(labels)
    classifier = KNeighborsClassifier(3, metric='cosine', weights=lambda distances: np.exp((1 - distances) / 0.07))
    found = classifier.fit(features[:6], labels[:6]).predict(features[6:])
    assert accuracy == (found == labels[6:]).mean()
