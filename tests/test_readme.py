import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()


def test_config_of_another_library(tmp_path):
    pytest.importorskip('mmdet', reason='mmdet is not installed')
    pytest.importorskip('mmcv.ops', reason="mmcv has no compiled ops, which mmdet's modules need")
    from mmdet.registry import MODELS

    (code,) = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
    path = tmp_path / 'retinanet.py'
    path.write_text(code)
    config = Config.fromfile(path)
    init_default_scope('mmdet')
    model = MODELS.build(config.model).eval()
    with torch.no_grad():
        feats = model.extract_feat(torch.randn(1, 3, 128, 192))
    strides = [stride[0] for stride in model.bbox_head.prior_generator.strides]
    assert [tuple(x.shape[2:]) for x in feats] == [(-(-128 // s), -(-192 // s)) for s in strides]


def test_files_and_commands_it_names_are_there():
    names = re.findall(r'(?:configs|tools|requirements|docs|tests)/[\w./-]+\.\w+', README)
    assert names and not [name for name in names if not (ROOT / name).exists()]
