import ast
import json
import re
from importlib import import_module

import numpy as np
import pytest
import torch
from helpers import CONFIGS, ROOT, copy_template, require, write_config
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmconvmae.registry import MODELS

README = (ROOT / 'README.md').read_text()
GUIDES = {
    path: path.read_text()
    for pattern in ('*.md', 'docs/*.md', 'configs/**/*.md')
    for path in sorted(ROOT.glob(pattern))
}
TEXT = '\n'.join(GUIDES.values())


def code_after(comment):
    (code,) = re.findall(rf'<!-- {comment} -->\n```python\n(.*?)```', TEXT, flags=re.DOTALL)
    return code


@pytest.mark.parametrize('detector', ['retinanet', 'cascade'])
def test_config_of_another_detector(tmp_path, detector):
    require('mmdet')
    code = code_after('tests/test_readme.py builds this')
    if detector == 'cascade':
        first, *others = code.splitlines()
        code = '\n'.join([f'_base_ = {first.split("#")[1]}', *others])
    config = Config.fromfile(write_config(tmp_path / 'detector.py', code))
    assert detector in config.model.type.lower()
    init_default_scope('mmdet')
    model = MODELS.build(config.model).eval()
    with torch.no_grad():
        feats = model.extract_feat(torch.randn(1, 3, 128, 192))
    head = model.bbox_head if detector == 'retinanet' else model.rpn_head
    strides = [stride[0] for stride in head.prior_generator.strides]
    assert [tuple(x.shape[2:]) for x in feats] == [(-(-128 // s), -(-192 // s)) for s in strides]


def test_config_of_another_segmentor(tmp_path):
    require('mmseg')
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    code = code_after('tests/test_readme.py builds this for segmentation')
    config = Config.fromfile(write_config(tmp_path / 'segmentor.py', code))
    init_default_scope('mmseg')
    config.model.backbone.arch = 'tiny'
    config.model.decode_head.in_channels = [48, 96, 192, 192]
    model = MODELS.build(config.model).eval()
    sample = SegDataSample(metainfo=dict(ori_shape=(90, 137), img_shape=(90, 137)))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, 90, 137, dtype=torch.long))
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[torch.randint(256, (3, 90, 137))], data_samples=[sample]))
    assert result.pred_sem_seg.data.shape == (1, 90, 137)


def test_interfaces_of_mmpretrain(tmp_path, monkeypatch):
    pretraining = CONFIGS['convmae_convvit-tiny-p16_1xb64-coslr-60e_digits-64px']
    finetuning = CONFIGS['convvit-tiny-p16_1xb20-coslr-50e_digits-10-per-class-64px']
    for path, name in ((finetuning, 'finetuned.pth'), (pretraining, 'ours.pth')):
        state_dict = MODELS.build(Config.fromfile(path).model).state_dict()
        meta = dict(dataset_meta=dict(classes=list('0123456789')))  # as training saves it
        torch.save(dict(state_dict=state_dict, meta=meta), tmp_path / name)
    Image.new('RGB', (80, 64)).save(tmp_path / 'image.jpg')
    monkeypatch.chdir(tmp_path)
    # The value of each line of the snippet that is an expression.
    values, variables = [], dict(CONFIG=str(finetuning))
    for node in ast.parse(code_after('tests/test_readme.py runs this')).body:
        if isinstance(node, ast.Expr):
            values.append(eval(compile(ast.Expression(node.value), 'guide', 'eval'), variables))
        else:
            exec(compile(ast.Module([node], []), 'guide', 'exec'), variables)
    pred_class, ((vector,),), (maps,) = values
    assert pred_class in list('0123456789')
    assert vector.shape == (192,)
    assert [tuple(x.shape) for x in maps] == [(48, 16, 20), (96, 8, 10), (192, 4, 5)]


def save_small(name, folder, **settings):
    """A copy of a template with a small model, and a checkpoint of it with random weights."""
    config = Config.fromfile(copy_template(name, folder / f'my_{name}.py', arch='tiny', **settings))
    preprocessor = config.model.get('data_preprocessor', config.get('data_preprocessor'))
    model = MODELS.build(dict(config.model, data_preprocessor=preprocessor))
    palette = [[100, 0, 0], [0, 100, 0]]
    meta = dict(dataset_meta=dict(classes=settings['classes'], palette=palette))  # as training saves it
    names = dict(detect='detector.pth', segment='segmentor.pth', classify='classifier.pth')
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / names[name])


@pytest.mark.parametrize(
    ('library', 'name', 'size', 'written'),
    [
        ('mmdet', 'detect', dict(image_size=128), ['preds/a.json', 'preds/b c.json', 'vis/a.jpg', 'vis/b c.png']),
        ('mmseg', 'segment', dict(image_size=(64, 64), short_edge=64), ['pred', 'vis/a.jpg', 'vis/b c.png']),
        ('mmpretrain', 'classify', dict(image_size=(64, 64)), ['a.png', 'b c.png', 'classes.json']),
    ],
)
def test_predictions_for_a_folder(tmp_path, monkeypatch, library, name, size, written):
    """Also with what a folder holds beside images."""
    require(library)
    import_module(f'{library}.models')
    init_default_scope(library)
    monkeypatch.chdir(tmp_path)
    save_small(name, tmp_path, classes=('cat', 'dog'), **size)
    images = tmp_path / 'images'
    images.mkdir()
    for image in ('a.jpg', 'b c.png'):
        Image.effect_noise((90, 70), 80).convert('RGB').save(images / image)
    (images / 'notes.txt').write_text('no image')
    pattern = r'<!-- tests/test_readme.py predicts with this -->\n```python\n(.*?)```'
    (code,) = (code for code in re.findall(pattern, TEXT, flags=re.DOTALL) if f'my_{name}.py' in code)
    exec(code, {})
    predictions = tmp_path / 'predictions'
    assert all((predictions / path).exists() for path in written), list(predictions.rglob('*'))
    if name == 'classify':
        assert set(json.loads((predictions / 'classes.json').read_text()).values()) <= {'cat', 'dog'}
    if name == 'segment':
        masks = [np.array(Image.open(path)) for path in (predictions / 'pred').iterdir()]
        assert len(masks) == 2 and all(mask.shape == (70, 90) and mask.max() <= 1 for mask in masks)
    if name == 'detect':
        assert set(json.loads((predictions / 'preds/a.json').read_text())) == {'bboxes', 'labels', 'masks', 'scores'}


def test_files_and_commands_they_name_are_there():
    text = re.sub(r'\]\([^)]*\)', '', TEXT)  # links have a test of their own
    names = re.findall(r'(?<![\w./])(?:benchmarks|configs|docs|requirements|tests|tools)/[\w./-]+\.\w+', text)
    assert names and not [name for name in names if not (ROOT / name).exists()]


def test_links_lead_somewhere():
    """To a file, and to a heading where there is one behind it."""
    for path, text in GUIDES.items():
        for link in re.findall(r'\]\((?!https?://)([^)\s]+)\)', text):
            name, _, heading = link.partition('#')
            target = path.parent / name if name else path
            assert target.exists(), f'{path.name}: {link}'
            if heading:
                titles = re.findall(r'(?m)^#+ (.*)$', target.read_text())
                anchors = [re.sub(r'[^\w\s-]', '', title).strip().lower().replace(' ', '-') for title in titles]
                assert heading in anchors, f'{path.name}: {link}'


def test_readme_is_one_path():
    assert len(README.splitlines()) <= 130
