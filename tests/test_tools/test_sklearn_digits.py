import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def test_split_has_every_digit_once(digits):
    data = load_digits()
    paths = {int(path.stem): path for path in digits.glob('*/*/*.png')}
    assert sorted(paths) == list(range(len(data.target)))
    assert len(list(digits.glob('*/*/*.png'))) == len(data.target)
    assert 0.19 < len(list(digits.glob('val/*/*.png'))) / len(data.target) < 0.21
    for i in range(0, len(data.target), 100):
        assert paths[i].parent.name == str(data.target[i])
        image = Image.open(paths[i])
        assert image.size == (64, 64)
        pixels = np.asarray(image.resize((8, 8), Image.Resampling.BOX)) / 255 * 16
        assert np.corrcoef(pixels.flat, data.images[i].flat)[0, 1] > 0.95


def test_ten_labels_of_each_class(digits):
    lists = [path.read_text().splitlines() for path in sorted(digits.glob('meta/train_10_per_class_*.txt'))]
    assert len({tuple(lines) for lines in lists}) == 3
    for lines in lists:
        labels = [int(line.split()[1]) for line in lines]
        assert len(set(lines)) == 100 and sorted(labels) == sorted(list(range(10)) * 10)
        assert all((digits / 'train' / line.split()[0]).parent.name == line.split()[1] for line in lines)
        assert all((digits / 'train' / line.split()[0]).is_file() for line in lines)


def test_folder_that_is_there(run_tool, digits):
    result = run_tool('dataset_converters/sklearn_digits.py', digits)
    assert result.returncode == 1 and 'is already there' in result.stderr
