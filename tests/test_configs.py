from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmconvmae.registry import MODELS

FOLDER = Path(__file__).resolve().parents[1] / 'configs' / 'convmae'
CONFIGS = sorted(path.stem for path in FOLDER.glob('*.py'))


def load(name):
    return Config.fromfile(FOLDER / f'{name}.py')


@pytest.mark.parametrize('name', CONFIGS)
def test_model_trains_on_images_of_the_pipeline(name):
    config = load(name)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    (crop,) = [step for step in config.train_pipeline if step['type'] == 'RandomResizedCrop']
    loss = model.loss(torch.rand(2, 3, crop['scale'], crop['scale'], device='meta'), None)['loss']
    loss.backward()
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline


@pytest.mark.parametrize('name', CONFIGS)
def test_recipe_is_the_papers(name):
    config = load(name)
    assert config.custom_imports.imports == ['mmconvmae']
    assert config.model.mask_generator.mask_ratio == 0.75
    assert config.auto_scale_lr.enable and config.randomness.diff_rank_seed
    if 'demo' in name:
        return
    optimizer = config.optim_wrapper.optimizer
    assert optimizer.lr == pytest.approx(1.5e-4 * config.auto_scale_lr.base_batch_size / 256)
    assert (optimizer.type, tuple(optimizer.betas), optimizer.weight_decay) == ('AdamW', (0.9, 0.95), 0.05)
    assert config.optim_wrapper.type == 'AmpOptimWrapper' and config.optim_wrapper.dtype == 'bfloat16'
    gpus, batch = name.split('_')[2].split('-')[0].split('xb')
    assert config.train_dataloader.batch_size == int(batch)
    assert int(gpus) * int(batch) == config.auto_scale_lr.base_batch_size
    assert f'coslr-{config.train_cfg.max_epochs}e' in name
    warmup, cosine = config.param_scheduler
    assert (warmup.begin, warmup.end, cosine.begin) == (0, 40, 40)
    assert 'end' not in cosine and 'T_max' not in cosine  # the runner ends it with the last epoch


def test_weight_decay_spares_one_dimensional_parameters():
    config = load('convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=config.optim_wrapper.optimizer.to_dict(),
            paramwise_cfg=config.optim_wrapper.paramwise_cfg.to_dict(),
        ),
    )
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            if parameter.requires_grad:
                assert group['weight_decay'] == (0.05 if parameter.ndim > 1 else 0)


def test_metafile_lists_every_config():
    entries = yaml.safe_load((FOLDER / 'metafile.yml').read_text())['Models']
    assert sorted(entry['Name'] for entry in entries) == CONFIGS
    for entry in entries:
        assert entry['Config'] == f'configs/convmae/{entry["Name"]}.py'
        config = load(entry['Name'])
        with torch.device('meta'):
            model = MODELS.build(config.model)
        assert entry['Metadata']['Parameters'] == sum(p.numel() for p in model.parameters())
        assert entry['Metadata']['Epochs'] == config.train_cfg.max_epochs
        assert entry['Metadata']['Batch Size'] == config.auto_scale_lr.base_batch_size
