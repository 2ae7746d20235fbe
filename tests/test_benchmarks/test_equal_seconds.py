import json

import numpy as np
import pytest
import torch
from helpers import ROOT, import_script, run_main
from PIL import Image
from reference import encode

from mmconvmae.registry import MODELS


@pytest.fixture(scope='module')
def equal_seconds():
    return import_script('benchmarks/equal_seconds.py')


@pytest.fixture
def flowers(tmp_path):
    """Three classes that differ in colour."""
    generator = np.random.default_rng(0)
    for part, number in (('train', 10), ('val', 3)):
        for label in range(3):
            folder = tmp_path / 'flowers' / part / f'class{label}'
            folder.mkdir(parents=True)
            for n in range(number):
                pixels = generator.integers(0, 60, (70, 90, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(folder / f'{n}.jpg')
    return tmp_path / 'flowers'


def run(equal_seconds, monkeypatch, data, out, *args):
    options = ('--size', 64, '--batch-size', 4, '--timed-steps', 1, '--out', out, *args)
    return run_main(equal_seconds, monkeypatch, data, *options)


def test_runs_table_and_curve(equal_seconds, flowers, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    args = ('--contenders', 'complementary', 'spark', '--seconds', 0, 0.3, 0.6, '--seeds', 0, 1)
    assert run(equal_seconds, monkeypatch, flowers, out, *args) is None
    seconds = json.loads((out / 'steps.json').read_text())['seconds']
    runs = {path.stem: json.loads(path.read_text()) for path in (out / 'runs').glob('*')}
    assert sorted(runs) == ['complementary_seed0', 'complementary_seed1', 'spark_seed0', 'spark_seed1']
    for figures in runs.values():
        assert [point['seconds'] for point in figures['points']] == [0, 0.3, 0.6]
        for point in figures['points']:
            steps = int(point['seconds'] / seconds[figures['contender']])
            assert point['steps'] == steps
            assert point['decoded_images'] == steps * (1 if figures['contender'] == 'complementary' else 4)
            assert 0 <= point['knn'] <= 100 and point['probe'] == 100  # colours can be told apart by anything
    printed = capsys.readouterr().out
    row = printed.splitlines()[-1]
    knn = [runs[f'spark_seed{seed}']['points'][-1]['knn'] for seed in (0, 1)]
    assert row.startswith('| SparK') and row.endswith(f'| {np.mean(knn):.1f} ± {np.std(knn, ddof=1):.1f} | - | - | - |')
    loss = [runs[f'complementary_seed{seed}']['points'][-1]['loss'] for seed in (0, 1)]
    other = printed.splitlines()[-2]
    assert other.endswith(f'| {np.mean(loss):.3f} ± {np.std(loss, ddof=1):.3f} |')
    assert (out / 'results.png').stat().st_size > 0 and row in (out / 'results.md').read_text()

    # One seed has no deviation.
    results = [point for point in equal_seconds.load_runs(out) if point['seed'] == 0]
    row_of_one = equal_seconds.format_table(results, seconds, 30).splitlines()[-1]
    assert row_of_one.endswith(f'| {knn[0]:.1f} | - | - | - |') and '±' not in row_of_one

    # What was done is not done again; what is missing is, and is the same.
    lost = out / 'runs' / 'spark_seed1.json'
    before = {path: path.stat().st_mtime_ns for path in out.glob('runs/*') if path != lost}
    lost.unlink()
    assert run(equal_seconds, monkeypatch, flowers, out, *args) is None
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) == 3
    again = json.loads(lost.read_text())
    for point in (*again['points'], *runs['spark_seed1']['points']):
        point['cpu_seconds'] = 0
    assert again == runs['spark_seed1']

    # The table has what is in the folder, not what the command names.
    assert run(equal_seconds, monkeypatch, flowers, out, *args[:2], *args[3:]) is None
    assert row == capsys.readouterr().out.splitlines()[-1]

    assert 'give those, or another --out' in run(equal_seconds, monkeypatch, flowers, out, '--lr', 0.5)
    assert 'give those, or another --out' in run(equal_seconds, monkeypatch, flowers, out, *args[:3], '--seconds', 1)
    # also where the runs with other seconds are not among those that the command names
    args = ('--contenders', 'mae', '--seconds', 1)
    assert 'give those, or another --out' in run(equal_seconds, monkeypatch, flowers, out, *args)
    assert set(seconds) == set(equal_seconds.CONTENDERS)


def test_no_such_folder(equal_seconds, tmp_path, monkeypatch):
    assert 'there is no folder' in run(equal_seconds, monkeypatch, tmp_path, tmp_path / 'out')


def test_logistic_regression_is_scikit_learns(equal_seconds):
    linear_model = pytest.importorskip('sklearn.linear_model', reason='scikit-learn is not installed')
    torch.manual_seed(0)
    x, labels = torch.randn(60, 5).double(), torch.randint(3, (60,))
    layer = equal_seconds.fit(x, labels, 0.01)
    # its objective is the sum over images, times C, plus half the squared weights
    other = linear_model.LogisticRegression(C=1 / (2 * 0.01 * 60), tol=1e-10, max_iter=10000).fit(x, labels)
    np.testing.assert_allclose(layer.weight.detach(), other.coef_, atol=1e-4)


def test_schedule_and_averaged_weights(equal_seconds, flowers, monkeypatch):
    monkeypatch.setattr('sys.argv', ['', str(flowers), '--size', '64', '--batch-size', '4', '--lr', '0.01'])
    monkeypatch.setattr(equal_seconds, 'WARM_UP', 2)
    training = equal_seconds.Training('paper', 0, equal_seconds.parse_args())
    rates, weights = [], []
    for _ in range(4):
        training.step()
        rates.append(training.optimizer.param_groups[0]['lr'])
        weights.append(training.model.neck.decoder_pred.weight.detach().clone())
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01])
    # Step n of N weighs as n (n + 1) ... (n + 7), the polynomial of polynomial decay.
    shares = torch.tensor([float(np.prod(range(n, n + 8))) for n in range(1, 5)])
    expected = sum(share * weight for share, weight in zip(shares / shares.sum(), weights))
    torch.testing.assert_close(training.averaged.module.neck.decoder_pred.weight, expected)


@pytest.mark.parametrize('name', ['paper', 'complementary', 'mae'])
def test_held_out_loss_is_over_all_images(equal_seconds, name, monkeypatch):
    model, images = build(equal_seconds, name)
    images = images.repeat(30, 1, 1, 1)  # 90 of them, in batches of 64 and 26
    sizes, loss = [], type(model).loss

    def constant(self, inputs, data_samples):
        sizes.append(len(inputs))
        assert loss(self, inputs, data_samples)['loss'].isfinite() and not self.training
        return dict(loss=torch.tensor(float(len(inputs))))

    state = torch.get_rng_state()
    expected = equal_seconds.held_out_loss(model, images)
    assert expected == equal_seconds.held_out_loss(model, images) and torch.equal(state, torch.get_rng_state())
    monkeypatch.setattr(type(model), 'loss', constant)
    assert equal_seconds.held_out_loss(model, images) == pytest.approx((64 * 64 + 26 * 26) / 90)
    assert sizes == [64, 26]


def build(equal_seconds, name):
    preprocessor = dict(type='mmconvmae.ImageDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3, to_rgb=False)
    torch.manual_seed(0)
    model = MODELS.build(dict(equal_seconds.CONTENDERS[name].config(64), data_preprocessor=preprocessor))
    return model, torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)


def test_features_are_the_mean_over_the_last_map(equal_seconds):
    model, images = build(equal_seconds, 'paper')
    with torch.no_grad():
        *_, tokens = encode(model.state_dict(), images.float(), 6)
    torch.testing.assert_close(equal_seconds.features(model, images).float(), tokens.mean(1), rtol=1e-3, atol=1e-4)


def test_features_of_mae_are_without_the_class_token(equal_seconds):
    model, images = build(equal_seconds, 'mae')
    expected = []
    model.backbone.norm1.register_forward_hook(lambda module, args, output: expected.append(output[:, -16:].mean(1)))
    features = equal_seconds.features(model, images)
    assert torch.equal(features.float(), expected[0])


def test_features_of_spark_see_everything(equal_seconds):
    """Also after a step, which leaves its mask behind."""
    model, images = build(equal_seconds, 'spark')
    before = equal_seconds.features(model, images)
    model.loss(images.float(), None)
    torch.testing.assert_close(equal_seconds.features(model, images), before)
    darker = images.clone()
    darker[:, :, 40:, 40:] = 0  # the last of four cells
    assert (equal_seconds.features(model, darker) - before).abs().max() > 1e-4


def test_features_of_simmim_are_those_of_a_swin_without_masks(equal_seconds):
    model, images = build(equal_seconds, 'simmim')
    settings = dict(equal_seconds.simmim(64)['backbone'], type='mmpretrain.SwinTransformer')
    swin = MODELS.build(settings)
    swin.eval()  # gives nothing back
    assert swin.load_state_dict(model.backbone.state_dict(), strict=False).unexpected_keys == ['mask_token']
    with torch.no_grad():
        expected = swin(images.float())[-1].mean((2, 3))
    torch.testing.assert_close(equal_seconds.features(model, images), expected.double())


def test_simmim_learns_from_other_masks_each_time(equal_seconds):
    model, images = build(equal_seconds, 'simmim')
    model.eval()  # no dropped paths
    losses = [model.loss(images.float(), None)['loss'].item() for _ in range(2)]
    assert losses[0] != losses[1]
    model.cell, model.mask_ratio = 64, 1.0  # everything is hidden, so the image is not seen
    mask = model.draw_masks(images)
    assert mask.shape == (3, 16, 16) and mask.all()
    features = [model.backbone(x, mask)[-1] for x in (images.float(), torch.zeros(3, 3, 64, 64))]
    torch.testing.assert_close(*features)


def test_docs_have_the_table_of_the_stored_runs(equal_seconds):
    stored = ROOT / 'benchmarks' / 'evidence' / 'results' / 'equal_seconds'
    steps = json.loads((stored / 'steps.json').read_text())
    table = equal_seconds.format_table(
        equal_seconds.load_runs(stored), steps['seconds'], sum(steps['settings']['images'])
    )
    assert table in (ROOT / 'docs' / 'performance.md').read_text()
    # what the script would have them go on with
    assert steps['settings']['lr'] == {name: contender.lr for name, contender in equal_seconds.CONTENDERS.items()}
