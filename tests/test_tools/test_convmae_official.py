import safetensors.torch
import torch
from reference_detectron2 import ConvViT, MaskRCNN


def convert(run_tool, *args):
    return run_tool('model_converters/convmae_official.py', *args)


def test_there_and_back(run_tool, golden, tmp_path):
    source, ours, back = golden('official_tiny_pretrain.pth'), tmp_path / 'new' / 'ours.pth', tmp_path / 'back.pth'
    result = convert(run_tool, source, ours)
    assert result.returncode == 0, result.stderr
    assert '119 tensors written' in result.stdout and "'embed_dims': (32, 48, 96)" in result.stdout
    assert 'set `num_heads`' in result.stdout
    result = convert(run_tool, ours, back, '--to-official')
    assert result.returncode == 0, result.stderr
    official = torch.load(source, weights_only=True)['model']
    returned = torch.load(back)['model']
    assert returned.keys() == official.keys()
    assert all(torch.equal(returned[name], value) for name, value in official.items())


def test_the_detector_in_vitdets_form(run_tool, small_arch, tmp_path):
    source, ours, back = (tmp_path / f'{name}.pth' for name in ('source', 'ours', 'back'))
    model = MaskRCNN(ConvViT(small_arch, (1,), (3, 8), 4), small_arch['embed_dims'][2], 8, 12, 5)
    official = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    torch.save(dict(model=official, iteration=0), source)
    result = convert(run_tool, source, ours)
    assert result.returncode == 0, result.stderr
    for line in ("'window_size': 3", "'pad_windows': True", "'pretrain_img_size': 64", "'num_heads': 2"):
        assert line in result.stdout
    result = convert(run_tool, ours, back, '--to-official')
    assert result.returncode == 0, result.stderr
    returned = torch.load(back)['model']
    assert returned.keys() == official.keys()
    assert all(torch.equal(returned[name], value) for name, value in official.items())


def test_wrong_files_leave_nothing(run_tool, golden, tmp_path):
    truncated = tmp_path / 'truncated.pth'
    truncated.write_bytes(golden('official_tiny_pretrain.pth').read_bytes()[:10000])
    foreign = tmp_path / 'foreign.pth'
    torch.save(dict(model=torch.nn.Linear(2, 2).state_dict()), foreign)
    for source, message in (
        (truncated, 'truncated or not a PyTorch checkpoint'),
        (foreign, 'is it a checkpoint of something else?'),
        (tmp_path / 'missing.pth', 'No such file'),
    ):
        result = convert(run_tool, source, tmp_path / 'out.pth')
        assert result.returncode == 1
        assert message in result.stderr and 'Traceback' not in result.stderr
        assert not list(tmp_path.glob('*out.pth*'))


def test_there_and_back_by_safetensors(run_tool, golden, tmp_path):
    official = torch.load(golden('official_tiny_pretrain.pth'), weights_only=True)['model']
    source, ours, back = (tmp_path / f'{name}.safetensors' for name in ('source', 'ours', 'back'))
    safetensors.torch.save_file(official, source)
    result = convert(run_tool, source, ours)
    assert result.returncode == 0, result.stderr
    assert '119 tensors written' in result.stdout
    result = convert(run_tool, ours, back, '--to-official')
    assert result.returncode == 0, result.stderr
    returned = safetensors.torch.load_file(back)
    assert returned.keys() == official.keys()
    assert all(torch.equal(returned[name], value) for name, value in official.items())
    source.write_bytes(source.read_bytes()[:1000])
    result = convert(run_tool, source, tmp_path / 'out.safetensors')
    assert result.returncode == 1 and 'is truncated or no .safetensors file' in result.stderr
    assert 'Traceback' not in result.stderr and not list(tmp_path.glob('*out*'))
