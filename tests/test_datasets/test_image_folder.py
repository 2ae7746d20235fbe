import numpy as np
import pytest
import torch
from PIL import Image

from mmconvmae.datasets import ImageFileError, find_images
from mmconvmae.registry import DATASETS

PIPELINE = [dict(type='mmconvmae.LoadRandomResizedCrop', scale=16), dict(type='mmpretrain.PackInputs')]


def save(path, value=0, mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 20), value).save(path)


def build(root, **kwargs):
    kwargs.setdefault('pipeline', PIPELINE)
    return DATASETS.build(dict(type='mmconvmae.ImageFolder', data_root=str(root), **kwargs))


def paths(dataset):
    return [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]


def test_takes_every_suffix_and_counts_the_rest(tmp_path):
    names = ['a.webp', 'b.TIFF', 'c.gif', 'd.avif', 'e.jp2', 'f.jfif', 'g h (1).png', 'blüte 花.jpg', 'sub/deep/i.bmp']
    for name in names:
        save(tmp_path / name)
    for name in ('notes.txt', 'more.txt', '.hidden.jpg', 'no_suffix', 'photo.jpg.download'):
        (tmp_path / name).write_bytes(b'x')
    found, passed_over = find_images(f'{tmp_path}/')
    assert found == sorted(names)
    assert passed_over == {'.txt': 2, 'hidden': 1, 'no suffix': 1, '.download': 1}


def test_follows_links_and_survives_a_circle(tmp_path):
    save(tmp_path / 'there/a.png')
    (tmp_path / 'here').mkdir()
    (tmp_path / 'here/link').symlink_to(tmp_path / 'there')
    (tmp_path / 'there/back').symlink_to(tmp_path / 'here')
    assert find_images(tmp_path / 'here')[0] == ['link/a.png']


def test_reads_a_list(tmp_path):
    for name in ('a.png', 'b c.png', 'd.png'):
        save(tmp_path / name)
    (tmp_path / 'good.txt').write_text('b c.png\nd.png\n')
    assert paths(build(tmp_path, ann_file='good.txt')) == [str(tmp_path / 'b c.png'), str(tmp_path / 'd.png')]


def test_no_folder_no_list_no_image(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'There is no folder .*nowhere; give the path'):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'There is no list .*good\.txt'):
        build(tmp_path, ann_file='good.txt')
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(ValueError, match=r'0 images are in .*; 1 other files are not taken \(\.txt: 1\); suffixes'):
        build(tmp_path)


@pytest.fixture
def damaged(tmp_path):
    for index in range(10):
        save(tmp_path / f'{index}.png', (index, 0, 0))
    for index in range(5):
        content = (tmp_path / f'{index}.png').read_bytes()
        (tmp_path / f'{index}.png').write_bytes(content[:40])
    return tmp_path


def test_damaged_images_stop_a_run(damaged):
    with pytest.raises(ImageFileError, match=r'The image .*0\.png is'):
        build(damaged)[0]


def test_damaged_images_are_left_out_and_named_once(damaged, monkeypatch):
    said = []
    monkeypatch.setattr('mmconvmae.datasets.damaged.print_log', lambda text, **kwargs: said.append(text))
    dataset = build(damaged, skip_damaged=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None)
    for _ in range(2):
        for data in loader:
            assert data['inputs'][2, 0, 0] >= 5  # red, of an image that is whole
    named = [text for text in said if 'Left out' in text]
    assert sorted(text.split('.png')[0][-1] for text in named) == list('01234')


def test_workers_share_what_is_damaged(damaged):
    dataset = build(damaged, skip_damaged=True)
    for _ in torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2):
        pass
    assert dataset.damaged.nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_too_many_damaged_images(damaged):
    dataset = build(damaged, skip_damaged=True, max_damaged=2)
    with pytest.raises(ImageFileError, match=r'3 of 10 images in .* cannot be used, and max_damaged is 2'):
        for index in range(3):
            dataset[index]


def test_nothing_but_damaged_images(tmp_path):
    for index in range(3):
        (tmp_path / f'{index}.png').write_bytes(b'x')
    with pytest.raises(ImageFileError, match='3 of 3 images'):
        build(tmp_path, skip_damaged=True)[0]


def test_depths_are_not_mixed_in_silence(tmp_path):
    save(tmp_path / 'a.png')
    Image.fromarray(np.full((20, 20), 20000, np.uint16)).save(tmp_path / 'b.png')
    dataset = build(tmp_path)
    with pytest.raises(ValueError, match=r'a\.png and .*b\.png have different depths .*full_scale=255'):
        dataset[0], dataset[1]
    scaled = [dict(PIPELINE[0], full_scale=255), PIPELINE[1]]
    dataset = build(tmp_path, pipeline=scaled)
    assert dataset[0]['inputs'].dtype == dataset[1]['inputs'].dtype == torch.float32
    assert dataset[1]['inputs'].numpy() == pytest.approx(20000 / 257, abs=1e-3)
