import importlib.util
import json
import multiprocessing
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from helpers import ROOT
from PIL import Image

rng = np.random.default_rng(0)


@pytest.fixture(scope='module')
def tool():
    """The script as a module, so that tests need not import everything anew for each scan."""
    spec = importlib.util.spec_from_file_location('scan_images', ROOT / 'tools/analysis_tools/scan_images.py')
    module = sys.modules['scan_images'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules['scan_images']


@pytest.fixture
def scan(tool, tmp_path, monkeypatch, capsys):
    """Scans a folder; gives exit status, what was printed, and the report."""

    def scan(folder, *args):
        out = tmp_path / 'report' / 'report.json'
        out.unlink(missing_ok=True)
        options = ['--json', out, '--workers', 2, *args]
        monkeypatch.setattr(sys, 'argv', ['scan_images.py', *map(str, [folder, *options])])
        with pytest.raises(SystemExit) as exit:
            tool.main()
        assert not multiprocessing.active_children()
        printed = capsys.readouterr()
        report = json.loads(out.read_text()) if out.exists() else None
        return SimpleNamespace(status=exit.value.code, out=printed.out, err=printed.err, report=report)

    return scan


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    return folder


def noise(height, width, *channels, dtype=np.uint8):
    return rng.integers(0, np.iinfo(dtype).max, (height, width, *channels), dtype, endpoint=True)


def write(folder, **images):
    """Write arrays, as TIFF what Pillow has no place for."""
    for name, image in images.items():
        if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] < 5):
            Image.fromarray(image).save(folder / f'{name}.png')
        else:
            photometric = 'rgb' if image.ndim == 3 and image.shape[2] == 3 else 'minisblack'
            tifffile.imwrite(folder / f'{name}.tif', image, photometric=photometric, planarconfig='contig')


def check_pixels(report, images):
    """Compare the report with the pixels of images of shape (H, W, C)."""
    pixels = np.concatenate([image.reshape(-1, image.shape[-1]) for image in images]).astype(np.float64)
    assert report['pixels'] == len(pixels)
    for name in ('mean', 'std'):
        np.testing.assert_allclose(report[name], getattr(pixels, name)(0), rtol=1e-12)
    assert report['low'] == pixels.min(0).tolist() and report['high'] == pixels.max(0).tolist()


def test_grey_and_colour(scan, folder):
    grey, colour, transparent = noise(30, 40), noise(50, 20, 3), noise(21, 22, 4)
    write(folder, grey=grey, colour=colour, transparent=transparent)
    (folder / 'notes.txt').touch()
    result = scan(folder)
    assert result.status == 0
    report = result.report
    assert (report['taken'], report['not_taken'], report['usable']) == (3, {'.txt': 1}, 3)
    assert report['channels'] == {'1': 1, '3': 1, '4': 1} and report['with_transparency'] == 1
    assert report['sizes']['width'] == [20, 22, 40] and report['sizes']['height'] == [21, 30, 50]
    assert report['sizes']['shorter_edge'] == {'1 to 31': 3} and report['sizes']['small'] == 3
    check_pixels(report, [grey[..., None].repeat(3, 2), colour, transparent[..., :3]])

    pasted = {}
    exec('\n'.join(line.strip() for line in result.out.splitlines() if ' = ' in line), pasted)
    assert pasted['in_channels'] == report['in_channels'] == 3
    np.testing.assert_allclose(pasted['mean'], report['mean'], rtol=1e-5)
    np.testing.assert_allclose(pasted['std'], report['std'], rtol=1e-5)


def test_grey_alone(scan, folder):
    images = [noise(30, 40), noise(10, 20, 2)]
    write(folder, grey=images[0], transparent=images[1])
    result = scan(folder)
    assert result.status == 0 and result.report['in_channels'] == 1
    check_pixels(result.report, [images[0][..., None], images[1][..., :1]])
    result = scan(folder, '--in-channels', 3)
    assert result.status == 0 and len(result.report['mean']) == 3


def test_bands_are_taken_where_most_images_have_them(scan, folder):
    bands = [noise(8, 9, 6), noise(9, 8, 6)]
    write(folder, a=bands[0], b=bands[1], colour=noise(8, 8, 3))
    result = scan(folder)
    assert result.status == 1 and result.report['in_channels'] == 6
    check_pixels(result.report, bands)
    (fault,) = result.report['unusable']
    assert fault['path'] == 'colour.png' and str(folder / 'colour.png') in fault['reason']
    assert fault['reason'] in result.out

    write(folder, more=noise(8, 8, 3))  # of equals the smaller number, which is colour
    assert scan(folder).report['in_channels'] == 3


def test_mixed_depths(scan, folder):
    shallow, deep = noise(30, 20, 3), noise(20, 30, 3, dtype=np.uint16)
    write(folder, shallow=shallow, deep=deep)
    result = scan(folder)
    assert result.status == 0 and result.report['usable_depths'] == {'uint16': 1, 'uint8': 1}
    assert 'Warning: depths are mixed' in result.out and '--full-scale 255' in result.out
    assert '  1 uint16, such as deep.tif\n' in result.out
    result = scan(folder, '--full-scale', 255)
    assert 'Warning' not in result.out and 'full_scale = 255' in result.out
    check_pixels(result.report, [shallow, deep * (255 / 65535)])

    write(folder, floats=rng.random((5, 5, 3), np.float32))
    assert 'full_scale changes no floats' in scan(folder, '--full-scale', 255).out


def test_values_that_are_not_finite(scan, folder):
    image = rng.random((20, 10), np.float32)
    image[3, :4] = np.nan
    write(folder, image=image)
    result = scan(folder)
    assert result.report['with_values_not_finite'] == 1 and result.report['values_not_finite'] == 4
    assert re.search('NaN, infinite or missing +1  4 values', result.out)
    np.testing.assert_allclose(result.report['mean'], np.nanmean(image.astype(np.float64)), rtol=1e-6)


def test_moments_in_blocks(tool):
    image = 1e6 + rng.random((70, 11, 2))
    moments = tool.Moments.measure(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, 'BLOCK', 50)
        blocks = tool.Moments.measure(image)
    for result in (moments, blocks):
        np.testing.assert_allclose(result.mean, image.mean((0, 1)), rtol=1e-13)
        np.testing.assert_allclose(result.std, image.std((0, 1)), rtol=1e-9)


def test_constant_channel_is_not_divided_by_zero(scan, folder):
    image = noise(5, 6, 3)
    image[..., 1] = 7
    write(folder, image=image)
    result = scan(folder)
    assert result.report['std'][1] == 0
    assert re.search(r' std = \[[\d.]+, 1\.0, [\d.]+\]', result.out) and 'Channel 1, counted from 0' in result.out


def test_copies(scan, folder, tmp_path):
    names = ('b.png', 'c.bmp', 'd.ppm', 'sub folder/é 花.png')
    (folder / 'sub folder').mkdir()
    image, other = noise(20, 30), noise(20, 30, 3)
    write(folder, a=other)
    for name in names:
        Image.fromarray(image).convert('RGB' if name == 'c.bmp' else 'L').save(folder / name)
    (folder / 'a copy.png').write_bytes((folder / 'a.png').read_bytes())

    result = scan(folder, '--out', tmp_path / 'new' / 'good.txt')
    assert result.status == 0
    groups = {tuple(group['paths']): group['same'] for group in result.report['copies']}
    assert groups == {('a copy.png', 'a.png'): 'bytes', names: 'pixels'}
    assert (tmp_path / 'new' / 'good.txt').read_text('utf-8').splitlines() == ['a copy.png', 'a.png', *names]

    result = scan(folder, '--out', tmp_path / 'good.txt', '--drop-duplicates')
    assert (tmp_path / 'good.txt').read_text('utf-8').splitlines() == ['a copy.png', 'b.png']
    assert (result.report['usable'], result.report['kept']) == (6, 2)
    check_pixels(result.report, [image[..., None].repeat(3, 2), other])


@pytest.mark.parametrize('form', ['{}/', '{}/.', 'link'])
def test_ways_to_name_a_folder(scan, folder, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    Path('link').symlink_to(folder)
    (folder / 'sub').mkdir()
    write(folder / 'sub', a=noise(5, 5))
    assert scan(form.format(folder), '--out', 'good.txt').status == 0
    assert Path('good.txt').read_text() == 'sub/a.png\n'


def test_unusable_files(scan, folder, tmp_path):
    write(folder, good=noise(10, 10, 3))
    Image.fromarray(noise(64, 64, 3)).save(folder / 'cut.jpg')
    (folder / 'cut.jpg').write_bytes((folder / 'cut.jpg').read_bytes()[:-900])
    for i in range(30):
        (folder / f'text{i:02d}.jpg').write_text(f'{i} is no image')
    (folder / 'line\nbreak.png').write_bytes((folder / 'good.png').read_bytes())
    os.symlink('gone.png', folder / 'dangling.png')

    result = scan(folder, '--out', tmp_path / 'good.txt')
    assert result.status == 1
    assert (tmp_path / 'good.txt').read_text() == 'good.png\n'
    faults = {fault['path']: fault['reason'] for fault in result.report['unusable']}
    assert len(faults) == result.report['taken'] - 1 >= 32
    assert all(name in reason and reason.endswith('.') for name, reason in faults.items() if '\n' not in name)
    assert 'line break' in faults['line\nbreak.png']
    assert f'and {len(faults) - 20} more of them; --json FILE' in result.out
    assert '1 of' in result.out.splitlines()[-2]
    # Damage behind the header is not seen without decoding.
    result = scan(folder, '--header-only')
    assert 'cut.jpg' not in {fault['path'] for fault in result.report['unusable']}
    assert result.report['pixels'] is None and ' mean = ' not in result.out


@pytest.mark.skipif(os.name == 'nt' or sys.platform == 'darwin', reason='names are not bytes there')
def test_name_that_is_not_utf8(scan, folder, tmp_path):
    write(folder, good=noise(10, 10, 3))
    with open(os.fsencode(folder) + b'/\xff.png', 'wb') as file:
        file.write((folder / 'good.png').read_bytes())
    assert scan(folder).status == 0
    result = scan(folder, '--out', tmp_path / 'good.txt')
    assert result.status == 1 and 'is not UTF-8' in result.out
    assert (tmp_path / 'good.txt').read_text() == 'good.png\n'


def test_nothing_to_train_with(scan, folder, tmp_path):
    result = scan(folder / 'missing')
    assert result.status == 2 and re.fullmatch('Error: .* is not a folder.\n', result.err)
    (folder / 'notes.txt').touch()
    result = scan(folder)
    assert result.status == 2 and re.fullmatch(r'Error: .* holds no images, but 1 \.txt\.\n', result.err)
    (folder / 'text.jpg').write_text('no image')
    result = scan(folder, '--out', tmp_path / 'good.txt')
    assert result.status == 2 and 'Error: none of the 1 images' in result.err
    assert not (tmp_path / 'good.txt').exists() and len(result.report['unusable']) == 1


needs_fork = pytest.mark.skipif(sys.platform != 'linux', reason='a spawned process does not know what tests replace')


@needs_fork
def test_file_that_brings_down_its_process(scan, tool, folder, tmp_path, monkeypatch):
    class DeadlyImageFile(tool.ImageFile):
        def read(self, *args):
            once = tmp_path / f'{Path(self.path).stem}.once'
            if 'always' in self.path or ('first' in self.path and not once.exists()):
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(*args)

    monkeypatch.setattr(tool, 'ImageFile', DeadlyImageFile)
    images = {f'image{i:02d}': noise(5, 6, 3) for i in range(20)}
    images.update(image01_always=noise(5, 6, 3), image10_always=noise(5, 6, 3), image05_first=noise(5, 6, 3))
    write(folder, **images)
    result = scan(folder)
    assert result.status == 1 and result.report['usable'] == 21
    faults = {fault['path']: fault['reason'] for fault in result.report['unusable']}
    assert faults.keys() == {'image01_always.png', 'image10_always.png'}
    assert all('brings down the process that reads it (SIGKILL)' in reason for reason in faults.values())
    check_pixels(result.report, [image for name, image in sorted(images.items()) if 'always' not in name])


@needs_fork
def test_error_of_the_tool_itself(scan, tool, folder, monkeypatch):
    write(folder, image=noise(5, 6, 3))
    monkeypatch.setattr(tool, 'digest', lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scan(folder)
    assert not multiprocessing.active_children()


def test_interrupted(scan, tool, folder, tmp_path, monkeypatch):
    def interrupt(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool.ProgressBar, 'update', interrupt)
    write(folder, image=noise(5, 6, 3))
    result = scan(folder, '--out', tmp_path / 'good.txt')
    assert result.status == 130 and 'Interrupted: nothing was written.' in result.err
    assert result.report is None and not (tmp_path / 'good.txt').exists()


def test_command(run_tool, folder, tmp_path):
    write(folder, a=noise(5, 6, 3), b=noise(5, 6, 3))
    result = run_tool('analysis_tools/scan_images.py', folder, '--out', tmp_path / 'good.txt')
    assert result.returncode == 0, result.stderr
    assert '2/2' in result.stderr and 'ETA' in result.stderr and 'ETA' not in result.stdout
    assert '2 of 2 images can be used.' in result.stdout
    assert (tmp_path / 'good.txt').read_text() == 'a.png\nb.png\n'
