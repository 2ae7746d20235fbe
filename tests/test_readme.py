import ast
import json
import re
import shlex
import sys
from functools import reduce
from importlib import import_module
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    CONFIGS,
    ROOT,
    copy_template,
    import_script,
    load,
    needs_torch,
    require,
    run_main,
    write_config,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from safetensors.torch import load_file

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


def test_a_step_of_what_was_mae():
    variables = {}
    exec(code_after('tests/test_readme.py trains a step of this'), variables)
    loss = variables['model'].loss(torch.randn(2, 3, 64, 64), None)['loss']
    loss.backward()
    assert loss.isfinite()


def test_a_checkpoint_becomes_safetensors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=dict(weight=torch.randn(3)), meta=dict(epoch=100)), 'epoch_100.pth')
    exec(code_after('tests/test_readme.py writes with this'), {})
    written, expected = load_file('epoch_100.safetensors'), torch.load('epoch_100.pth')['state_dict']
    torch.testing.assert_close(written, expected, rtol=0, atol=0)


@needs_torch('2.6', 'the newer exporter needs PyTorch 2.6')
def test_a_graph_in_onnx_runtime(tmp_path, monkeypatch):
    for library in ('onnx', 'onnxruntime', 'onnxscript'):
        pytest.importorskip(library, reason=f'{library} is not installed')
    monkeypatch.chdir(tmp_path)
    save_small('classify', tmp_path, classes=('cat', 'dog'), image_size=(224, 224))
    script = import_script('tools/deployment/export.py')
    assert not run_main(script, monkeypatch, 'my_classify.py', 'classifier.pth', 'model.onnx')
    Image.effect_noise((90, 70), 80).save('image.jpg')
    variables = {}
    exec(code_after('tests/test_readme.py runs this with a classifier'), variables)
    assert variables['logits'].shape == (1, 2)


def test_every_python_block_is_run_or_says_why_not():
    before = re.findall(r'(?m)^(.*)\n```python$', TEXT)
    marks = [re.fullmatch(r'<!-- (tests/test_\w+\.py [\w ]+|not run: .+) -->', line) for line in before]
    assert before and all(marks), before


def commands():
    """Each command of the bash blocks as (guide, words)."""
    for path, text in GUIDES.items():
        for block in re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL):
            for line in block.replace('\\\n', ' ').splitlines():
                for part in ' '.join(shlex.split(line, comments=True)).split(' && '):
                    words = part.split()
                    while words and re.match(r'[A-Z]+=', words[0]):
                        del words[0]  # what is set in the environment
                    if words:
                        yield path.relative_to(ROOT), words


COMMANDS = list(commands())


@pytest.mark.parametrize(('guide', 'words'), COMMANDS, ids=lambda part: getattr(part, 'name', None))
def test_command_is_one(monkeypatch, guide, words):
    """Scripts parse it, and configs have the settings. None is run: they train for hours, or on images of yours."""
    program, *args = words
    if Path(program).name == 'python':
        monkeypatch.syspath_prepend((ROOT / args[0]).parent)
        script = import_script(args[0])
        monkeypatch.setattr(sys, 'argv', args)
        script.parse_args()  # exits at arguments that it has not
    elif program == 'mim':
        assert args[0] in ('train', 'test') and args[1] in ('mmpretrain', 'mmdetection', 'mmdet', 'mmseg', 'mmconvmae')
        template = re.fullmatch(r'my_(\w+)\.py', args[2])
        if template:
            config = ROOT / f'configs/own_images/{template[1]}.py'
        else:
            config = CONFIGS.get(Path(args[2]).stem)
        assert args[2] == 'CONFIG' or config.exists()
        if '--cfg-options' in args:
            config = load(config.stem)
            for option in args[args.index('--cfg-options') + 1 :]:
                *parents, name = option.split('=')[0].split('.')
                assert name in reduce(getitem, parents, config)
    elif program in ('bash', 'cp'):
        assert (ROOT / args[0]).is_file()
    else:
        assert program in ('pip', '.venv-test/bin/ruff', 'pre-commit')


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
