import json
import subprocess
from types import SimpleNamespace

import pytest
from helpers import ROOT, import_script, run_main, run_script

SMALLEST = ('--arch', 'tiny', '--frames', 4, '--size', 48, '--batch-size', 1, '--threads', 1, '--device', 'cpu')


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    return import_script('benchmarks/video_speed.py')


@pytest.fixture
def processes(tool, monkeypatch):
    """What the processes print, one after the other, in place of running them; gives the contenders that were run."""
    names, seconds = [], iter([1.0, 8.0, 2.0, 3.0, 6.0, 1.0, 4.0, 16.0, 5.0])

    def run(command, **kwargs):
        names.append(command[-1])
        step = next(seconds)
        figures = dict(seconds_per_step=step, peak_memory_gib=step + 1, step_memory_gib=step / 2)
        return SimpleNamespace(returncode=0, stdout=f'something else\n{json.dumps(figures)}\n')

    monkeypatch.setattr(subprocess, 'run', run)
    return names


def test_figures_of_each_contender(tmp_path):
    out = tmp_path / 'figures.json'
    options = ('--contenders', 'dense', 'videomae', '--rounds', 1, '--steps', 2, '--json', out)
    result = run_script('benchmarks/video_speed.py', *SMALLEST, *options)
    assert result.returncode == 0, result.stderr
    dense, videomae = json.loads(out.read_text())
    assert dense['time_ratio'] == dense['seconds_per_step'] / videomae['seconds_per_step'] > 0
    assert dense['memory_ratio'] == dense['peak_memory_gib'] / videomae['peak_memory_gib']
    assert dense['clips_per_second'] == 1 / dense['seconds_per_step']
    assert videomae['time_ratio'] == videomae['memory_ratio'] == 1
    for row in (dense, videomae):
        assert 0 <= row['step_memory_gib'] < row['peak_memory_gib'] and len(row['rounds']) == 1
        assert f'| {row["name"]} | {row["seconds_per_step"]:.3f} |' in result.stdout
    assert 'tiny, batch of 1 clips of 4 x 48 x 48, float32, CPU (threads: 1)' in result.stdout


def test_rounds_in_turn(tool, processes, monkeypatch, capsys, tmp_path):
    """Ratios are those of one round, and not of medians over all."""
    out = tmp_path / 'figures.json'
    assert run_main(tool, monkeypatch, *SMALLEST, '--batch-size', 3, '--rounds', 3, '--json', out) is None
    assert processes == ['visible', 'dense', 'videomae'] * 3
    visible, dense, videomae = json.loads(out.read_text())
    # seconds: 1, 3, 4; 8, 6, 16; 2, 1, 5
    assert [row['seconds_per_step'] for row in (visible, dense, videomae)] == [3, 8, 2]
    assert visible['time_ratio'] == 4 / 5 and dense['time_ratio'] == 4  # of 1 / 2, 3, 4 / 5 and of 4, 6, 16 / 5
    assert dense['memory_ratio'] == 9 / 3  # of 9 / 3, 7 / 2, 17 / 6
    assert visible['clips_per_second'] == 1
    assert 0 < visible['multiply_adds'] < dense['multiply_adds']
    table = capsys.readouterr().out
    assert '| VideoConvMAE, visible tubes only | 3.000 | 1.00 | 0.80 | 4.00 | 1.50 |' in table


def test_contenders_are_of_one_width(tool, monkeypatch):
    """Small, 16 frames of 224 x 224 pixels; the multiply-adds of the first two were counted before by other means."""
    import torch

    from mmconvmae.utils import count_multiply_adds

    monkeypatch.setattr('sys.argv', ['video_speed.py', '--size', '224'])
    args, costs = tool.parse_args(), {}
    for name in tool.CONTENDERS:
        with torch.device('meta'):
            model = tool.build(name, args)
            costs[name] = count_multiply_adds(model.loss, torch.empty(1, 3, 16, 224, 224), None) / 1e9
            assert model.generate_mask(torch.empty(1, 3, 16, 224, 224)).ids_keep.shape == (1, 20)
        blocks = model.backbone.layers if name == 'videomae' else model.backbone.stages[2].blocks
        assert len(blocks) == (12 if name == 'videomae' else 11)
        assert {(block.attn.embed_dims, block.attn.num_heads) for block in blocks} == {(384, 6)}
        assert (model.neck.decoder_embed.out_features, len(model.neck.decoder_blocks)) == (192, 4)
    # of the last decoder block the 0.2 G are not computed that the spelt-out counts have
    assert costs['visible'] == pytest.approx(12.5, abs=0.3) and costs['dense'] == pytest.approx(29.4, abs=0.3)
    assert costs['dense'] - costs['visible'] == pytest.approx(29.4 - 12.5, abs=0.1)
    # Tokens that are seen: 160; those of the decoder: 1568, of which 1408 are predicted.
    encoder = 160 * (2 * 16**2 * 3 * 384 + 12 * (12 * 384**2 + 2 * 160 * 384))
    block = 1568 * (12 * 192**2 + 2 * 1568 * 192)
    last = 1568 * 2 * 192**2 + 1408 * (10 * 192**2 + 2 * 1568 * 192)
    decoder = 160 * 384 * 192 + 3 * block + last + 1408 * 192 * 1536
    assert costs['videomae'] == pytest.approx((encoder + decoder) / 1e9, rel=1e-6)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--size', 40), 'Error: The image is 40 x 40 pixels, which the total stride of 16'),
        (('--frames', 3), 'Error: The clip has 3 frames, which `tubelet_size`, 2, does not divide'),
    ],
)
def test_sizes_that_there_are_no_tubes_for(tool, processes, monkeypatch, options, message):
    error = run_main(tool, monkeypatch, *SMALLEST, *options)
    assert error.startswith(message) and '\n' not in error and not processes


def test_a_process_that_fails(tool, monkeypatch):
    monkeypatch.setattr(subprocess, 'run', lambda command, **kwargs: SimpleNamespace(returncode=-9, stdout=''))
    error = run_main(tool, monkeypatch, *SMALLEST)
    assert error.startswith('Error: the process of visible ended with -9') and '--batch-size' in error


def test_arguments_that_do_not_go_together(tool, monkeypatch, capsys):
    for options, message in (
        (('--contenders', 'visible', 'dense'), '--reference videomae is not one of the --contenders'),
        (('--rounds', 0), 'are at least 1'),
    ):
        assert run_main(tool, monkeypatch, *options) == 2
        assert message in capsys.readouterr().err
