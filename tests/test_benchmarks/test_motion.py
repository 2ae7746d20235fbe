"""One run of everything on small clips, and what a class with one frame alone is left with."""

import json

import numpy as np
import torch
from helpers import import_script, run_script
from PIL import Image


def write_photographs(folder, number, seed):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(number):
        pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(folder / f'{i}.png')
    return folder


def test_a_run_and_another(tmp_path):
    photographs, others = (write_photographs(tmp_path / name, 5, seed) for seed, name in enumerate('ab'))
    out = tmp_path / 'out'
    command = (photographs, others, '--out', out, '--seeds', 0, 1, '--clips-per-class', 6, '--labelled', 5)
    command += ('--validation', 2, '--size', 32, '--steps', 1, '--finetuning-steps', 1)
    first = run_script('benchmarks/evidence/motion.py', *command)
    assert first.returncode == 0, first.stderr
    cells = {path.stem: json.loads(path.read_text()) for path in (out / 'cells').iterdir()}
    # The first seed tries each rate, the second takes the best.
    rates = [name for name in cells if name.startswith('random_') and name.endswith('_seed0')]
    assert len(rates) == 5 and len(cells) == 2 * 5 + 1 + 2 * 2 + 1
    assert all(0 <= cell['val'] <= 100 for cell in cells.values())
    table = (out / 'results.md').read_text().splitlines()
    assert [line.split(' | ')[0] for line in table[2:]] == [
        '| random',
        '| pretrained',
        '| pretrained, and one frame alone',
    ]
    mean = np.mean([cells[f'pretrained_probe_seed{seed}']['val'] for seed in (0, 1)])
    assert f' {mean:.1f} (' in table[3]

    second = run_script('benchmarks/evidence/motion.py', *command)
    assert second.returncode == 0 and 'step 1' not in second.stdout
    assert (out / 'results.md').read_text().splitlines() == table


def test_classes_share_the_middle_frame_but_not_the_clip(tmp_path):
    """What a model that sees one frame has to go by is the same for all classes, if the start is drawn alike."""
    module = import_script('tools/dataset_converters/moving_photographs.py')
    (path,) = write_photographs(tmp_path / 'a', 1, 0).iterdir()
    photograph = np.asarray(Image.open(path))
    clips = {
        name: torch.from_numpy(module.make_clip(photograph, name, 32, 15, np.random.default_rng(3))).int()
        for name in module.CLASSES
    }
    middles = torch.stack([clip[7] for clip in clips.values()])
    assert (middles == middles[:1]).all()
    ends = torch.stack([clip[14] for clip in clips.values()]).flatten(1).float()
    assert torch.pdist(ends).min() > 100
