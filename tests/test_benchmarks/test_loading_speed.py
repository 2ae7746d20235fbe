import pytest
from helpers import import_script, run_main
from PIL import Image

SCRIPT = 'benchmarks/loading_speed.py'


def test_both_sizes_and_every_way(monkeypatch, capsys, tmp_path):
    module = import_script(SCRIPT)
    monkeypatch.setattr(module, 'SIZES', {'12 megapixels': (800, 600), '500 x 375': (100, 75)})
    Image.effect_noise((40, 30), 80).convert('RGB').save(tmp_path / 'a.png')
    assert run_main(module, monkeypatch, '--images', tmp_path, '--repeat', '1') is None
    lines = capsys.readouterr().out.splitlines()
    for name in module.SIZES:
        (row,) = (line for line in lines if line.startswith(f'| {name} |'))
        assert all(int(cell) > 0 for cell in row.split('|')[2:5])
        assert any(line.startswith(f'{name}: mean difference') for line in lines)


def test_photographs_have_the_sizes_that_they_are_named_after(tmp_path):
    module = import_script(SCRIPT)
    for name, paths in module.make_photographs(None, tmp_path).items():
        assert len(paths) == 4 and all(Image.open(path).size == module.SIZES[name] for path in paths)


def test_differences_are_those_of_reduced_decoding(monkeypatch, capsys, tmp_path):
    """Of images that no crop lets be reduced, the difference is that of two resizers alone."""
    module = import_script(SCRIPT)
    monkeypatch.setattr(module, 'SIZES', {'12 megapixels': (1600, 1200), '500 x 375': (300, 225)})
    Image.effect_noise((400, 300), 80).convert('RGB').save(tmp_path / 'a.png')
    run_main(module, monkeypatch, '--images', tmp_path, '--repeat', '1')
    means = [
        float(line.split(' of 255')[0].split()[-1])
        for line in capsys.readouterr().out.splitlines()
        if 'mean difference' in line
    ]
    assert means[0] > 5 * means[1] and means[1] == pytest.approx(0, abs=0.5)
