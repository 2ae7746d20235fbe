"""The metafiles, by which mim and mmpretrain know the configs."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from helpers import CONFIGS, ROOT, build_on_meta, load

from mmconvmae.utils import count_multiply_adds, count_parameters

METAFILES = {path.parent: yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob('configs/**/metafile.yml'))}
ENTRIES = [(folder, entry) for folder, content in METAFILES.items() for entry in content['Models']]


def test_the_index_has_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert sorted(index) == sorted(str(folder.relative_to(ROOT) / 'metafile.yml') for folder in METAFILES)


def test_every_config_is_listed_once_and_in_the_nearest_metafile():
    def nearest(path):
        return next((parent for parent in path.parents if parent in METAFILES), None)

    assert sorted((entry['Config'], folder) for folder, entry in ENTRIES) == sorted(
        (str(path.relative_to(ROOT)), nearest(path)) for path in CONFIGS.values()
    )


@pytest.mark.parametrize(('folder', 'entry'), ENTRIES, ids=[entry['Name'] for _, entry in ENTRIES])
def test_readme_of_the_family_has_a_row_for_it(folder, entry):
    readme = next(path for parent in (folder, *folder.parents) if (path := parent / 'README.md').exists())
    link = (ROOT / entry['Config']).relative_to(readme.parent)
    (row,) = re.findall(rf'(?m)^\| \[{entry["Name"]}\]\({link}\) \| (.*) \|$', readme.read_text())
    parameters, *results = map(str.strip, row.split('|'))
    assert parameters == f'{entry["Metadata"]["Parameters"] / 1e6:.1f}'
    metrics = [metric for result in entry['Results'] or [] for metric in result['Metrics'].items()]
    expected = ', '.join(f'{name} {value}' for name, value in metrics).replace('Top 1 Accuracy', 'top-1')
    assert ''.join(results) == expected


def test_readme_of_the_templates_names_each():
    folder = ROOT / 'configs/own_images'
    named = re.findall(r'(?m)^\| \[.*?\]\((\w+\.py)\)', (folder / 'README.md').read_text())
    assert sorted(named) == sorted(path.name for path in folder.glob('*.py'))


@pytest.mark.parametrize(('folder', 'entry'), ENTRIES, ids=[entry['Name'] for _, entry in ENTRIES])
def test_entry_is_what_the_config_says(folder, entry):
    name, metadata = entry['Name'], entry['Metadata']
    assert name == Path(entry['Config']).stem
    (collection,) = METAFILES[folder]['Collections']
    assert entry['In Collection'] == collection['Name']
    config = load(name)
    model = build_on_meta(config).eval()
    assert metadata['Parameters'] == count_parameters(model)
    gpus, batch_size = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    assert batch_size == config.train_dataloader.batch_size
    assert metadata['Batch Size'] == config.auto_scale_lr.base_batch_size == gpus * batch_size
    if 'Epochs' in metadata:
        assert metadata['Epochs'] == config.train_cfg.max_epochs and f'-{metadata["Epochs"]}e_' in name
    else:
        assert metadata['Iterations'] == config.train_cfg.max_iters
    if 'FLOPs' in metadata:
        size = config.model.backbone.get('img_size', 224)
        frames = [config.model.backbone.num_frames] if 'num_frames' in config.model.backbone else []
        images = torch.empty(1, 3, *frames, size, size, device='meta')
        call = (model.loss, images, None) if hasattr(model, 'mask_generator') else (model, images)
        assert metadata['FLOPs'] == count_multiply_adds(*call)
