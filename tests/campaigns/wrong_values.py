"""Configs, images, checkpoints and annotations made wrong by a generator: each gives a sentence or a right result.

python tests/campaigns/wrong_values.py [--examples 300] [--seed 0] [--out FOLDER]

A sentence is an error that mmconvmae raises on purpose. Everything else that stops is counted as a traceback and
printed with what led to it; there should be none. FOLDER gets the figures and every sentence once, to be read.
"""

import argparse
import copy
import io
import json
import linecache
import logging
import math
import re
import sys
from collections import Counter
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import mmconvmae
from mmconvmae.registry import CHECKS, DATASETS, MODELS
from mmconvmae.utils import write_whole

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import SMALL_MODEL
from helpers import COCO

PACKAGE = str(Path(mmconvmae.__file__).parent)
# What somebody may write where a number, a name or a list belongs.
VALUES = (None, True, -3, -1, 0, 1, 2, 3, 7, 64, 100, 0.5, 1.5, -0.1, math.nan, 'base', 'max_pool', '64')
VALUES += ((), (2,), (2, 2), (2, 2, 2), (4, 2, 2), (0, 1), (3, 7), (-1, 2, 2), ('a', 'b', 'c'), {})


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--examples', type=int, default=300)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, metavar='FOLDER')
    return parser.parse_args()


def origin(error: BaseException) -> BaseException:
    """The error that the registry, or another library, has wrapped."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return error


def is_sentence(error: BaseException) -> bool:
    """Whether a statement of mmconvmae raised the error, on purpose."""
    for layer in (error, origin(error)):
        trace = layer.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        if file.startswith(PACKAGE) and linecache.getline(file, line).strip().startswith('raise '):
            return True
    return False


def places(config: dict, path: tuple = ()) -> list[tuple]:
    """The keys of a config at every depth."""
    found = []
    for key, value in config.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += places(value, (*path, key))
    return found


def put(config: dict, path: tuple, value: object) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


# ----------------------------------------------------------------------------------------------------- the four kinds
WHOLE_MODEL = copy.deepcopy(SMALL_MODEL)
WHOLE_MODEL['backbone'].update(
    patch_sizes=(4, 2, 2), in_channels=3, kernel_size=5, layer_scale_init_value=0.0, drop_path_rate=0.0, with_cp=False
)
WHOLE_MODEL['neck'].update(mlp_ratio=4, multi_scale=True, predict_ratio=1)
WHOLE_MODEL['head'].update(norm_pix=True)
WHOLE_MODEL['mask_generator'] = dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=0.75)
DENSE_MODEL = dict(
    type='mmconvmae.ConvViT',
    arch=SMALL_MODEL['backbone']['arch'],
    img_size=64,
    patch_sizes=(4, 2, 2),
    in_channels=3,
    kernel_size=5,
    window_size=2,
    global_attn_indexes=(0,),
    rel_pos='shared',
    layer_scale_init_value=1e-4,
    fourth_level='max_pool',
    out_indices=(0, 1, 2, 3),
    out_type='featmap',
    drop_path_rate=0.1,
    frozen_stages=-1,
    with_cp=False,
)


SHAPES = ((2, 3, 64, 64), (1, 3, 64, 96), (2, 3, 60, 64), (2, 1, 64, 64), (3, 64, 64))


@st.composite
def changed_models(draw):
    """A model's config with one or two values replaced, and images of some size."""
    config = copy.deepcopy(draw(st.sampled_from([WHOLE_MODEL, DENSE_MODEL])))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from([path for path in places(config) if path[-1] != 'type']))
        put(config, path, draw(st.sampled_from(VALUES)))
    return dict(config=config, shape=draw(st.sampled_from(SHAPES)))


def try_model(folder, config, shape):
    model = MODELS.build(config).eval()
    images = torch.randn(shape)
    out = model(images) if config['type'] == 'mmconvmae.ConvViT' else model.loss(images, []).values()
    assert all(torch.isfinite(x).all() for x in out)


# A file's suffix, format and mode, for Pillow; the others are tifffile's.
FORMATS = dict(
    png=('png', 'png', 'RGB'),
    jpeg=('jpg', 'jpeg', 'RGB'),
    tiff=('tif', 'tiff', 'RGB'),
    gif=('gif', 'gif', 'RGB'),
    bmp=('bmp', 'bmp', 'RGB'),
    webp=('webp', 'webp', 'RGB'),
    palette=('png', 'png', 'P'),
    grey=('png', 'png', 'L'),
    rgba=('png', 'png', 'RGBA'),
    tiff16=('tif', None, np.uint16),
    tiff_float=('tif', None, np.float32),
)


@st.composite
def changed_images(draw):
    """The bytes of an image file, cut off, overwritten or under the suffix of another."""
    suffix, name, kind = FORMATS[draw(st.sampled_from(list(FORMATS)))]
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    file = io.BytesIO()
    if name is None:
        tifffile.imwrite(file, pixels.astype(kind), photometric='rgb')
    else:
        Image.fromarray(pixels).convert(kind).save(file, name)
    content = bytearray(file.getvalue())
    place = draw(st.integers(0, len(content) - 1))
    match draw(st.sampled_from(['nothing', 'cut', 'bytes', 'zeros', 'empty', 'suffix'])):
        case 'cut':
            del content[place:]
        case 'bytes':
            for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=20)):
                content[place] = draw(st.integers(0, 255))
        case 'zeros':
            content[place:] = bytes(len(content) - place)
        case 'empty':
            content.clear()
        case 'suffix':
            suffix = draw(st.sampled_from(['png', 'jpg', 'tif', 'bmp']))
    loading = dict(in_channels=draw(st.sampled_from([1, 3, 4])), full_scale=draw(st.sampled_from([None, 255])))
    return dict(suffix=suffix, loading=loading, content=bytes(content))


def try_image(folder, suffix, loading, content):
    (folder / f'image.{suffix}').write_bytes(content)
    crop = dict(type='mmconvmae.LoadRandomResizedCrop', scale=16, **loading)
    data = DATASETS.build(dict(type='mmconvmae.ImageFolder', data_root=str(folder), pipeline=[crop]))
    assert data[0]['img'].shape == (16, 16, loading['in_channels'])


@st.composite
def changed_checkpoints(draw):
    """What is wrong with a checkpoint, and where."""
    faults = ['names', 'shape', 'type', 'missing', 'cut', 'bytes', 'empty', 'no weights', 'suffix']
    return dict(
        fault=draw(st.sampled_from(faults)), place=draw(st.integers(0, 10**6)), value=draw(st.sampled_from(VALUES))
    )


def try_checkpoint(folder, fault, place, value):
    weights = MODELS.build(DENSE_MODEL).state_dict()
    state = {f'backbone.{name}': x for name, x in weights.items()}
    name = list(state)[place % len(state)]
    match fault:
        case 'names':
            state = {f'model.{name}': x for name, x in state.items()}
        case 'shape':
            state[name] = state[name][..., :-1]
        case 'type':
            state[name] = value
        case 'missing':
            del state[name]
    path = folder / ('a.safetensors' if fault == 'suffix' else 'a.pth')
    torch.save(value if fault == 'no weights' else dict(state_dict=state), path)
    content = bytearray(path.read_bytes())
    match fault:
        case 'cut':
            del content[place % len(content) :]
        case 'bytes':
            content[place % 2000] ^= 1 + place % 255
        case 'empty':
            content.clear()
    path.write_bytes(content)
    model = MODELS.build(dict(DENSE_MODEL, init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')))
    model.init_weights()
    if fault not in ('missing', 'bytes'):  # one parameter has a value of its own, or another in one bit
        assert all(torch.equal(x, weights[name]) for name, x in model.state_dict().items())


@st.composite
def changed_annotations(draw):
    """COCO's annotations with a value replaced or left out, or the file damaged."""
    content = copy.deepcopy(COCO)
    part = draw(st.sampled_from(list(content)))
    entry = draw(st.sampled_from(content[part]))
    key = draw(st.sampled_from(list(entry)))
    length = None
    match draw(st.sampled_from(['value', 'missing', 'part', 'cut', 'twice'])):
        case 'value':
            entry[key] = draw(st.sampled_from((*VALUES, (1, 1, -5, 5), ((1, 1),), (-50, -50, 9, 9))))
        case 'missing':
            del entry[key]
        case 'part':
            content[part] = draw(st.sampled_from([[], {}, None, [1], ['a']]))
        case 'cut':
            length = draw(st.integers(0, 900))
        case 'twice':
            content[part].append(entry)
    right = ('cat', 'dog')
    classes = draw(st.sampled_from([right, right, right, ('cat', 'dgo'), right[::-1], ('cat',), ()]))
    return dict(text=json.dumps(content)[:length], classes=classes, with_mask=draw(st.booleans()))


def try_annotations(folder, text, classes, with_mask):
    import_module('mmdet.datasets')
    init_default_scope('mmdet')
    for i in (1, 2, 3):
        Image.new('RGB', (60, 40)).save(folder / f'{i}.png')
    (folder / 'a.json').write_text(text)
    data_set = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='mmconvmae.LoadWholeImage'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask),
            dict(type='PackDetInputs'),
        ],
    )
    model = dict(
        data_preprocessor=dict(pad_size_divisor=32),
        backbone=dict(type='mmconvmae.ConvViT'),
        bbox_head=dict(num_classes=len(classes)),
    )
    config = Config(dict(model=model, train_dataloader=dict(dataset=data_set)))
    faults = CHECKS.build(dict(type='mmconvmae.CocoCheck'))(config, ('train',), logging.getLogger('campaign'))
    if faults:
        raise Sentences(faults)
    # Nothing is wrong, so all can be loaded.
    for sample in DATASETS.build(data_set):
        labels = sample['data_samples'].gt_instances.labels
        assert all(labels < len(classes))


class Sentences(Exception):
    """The faults that a check found."""


KINDS = dict(
    models=(changed_models(), try_model),
    images=(changed_images(), try_image),
    checkpoints=(changed_checkpoints(), try_checkpoint),
    annotations=(changed_annotations(), try_annotations),
)


@contextmanager
def quiet():
    """No log in between."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def run(kind: str, case: dict, figures: Counter, sentences: set, tracebacks: list) -> None:
    """Try one case and count what came of it."""
    _, attempt = KINDS[kind]
    init_default_scope('mmpretrain')
    said = []
    with TemporaryDirectory() as folder, quiet():
        try:
            attempt(Path(folder), **case)
            outcome = 'right'
        except Sentences as error:
            outcome, said = 'sentence', error.args[0]
        except Exception as error:
            outcome, said = ('sentence' if is_sentence(error) else 'traceback'), [str(origin(error))]
            if outcome == 'traceback':
                tracebacks.append(f'{kind}: {str(case)[:600]}\n    {type(error).__name__}: {str(error)[:300]}')
        said = [text.replace(folder, 'FOLDER') for text in said]
    figures[kind, outcome] += 1
    sentences.update(re.sub(r'\d+', 'N', text) for text in said)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    figures, sentences, tracebacks = Counter(), set(), []
    each = -(-args.examples // len(KINDS))
    for kind, (cases, _) in KINDS.items():
        # Each case once, as it is drawn: what is wrong with it is not searched for but counted.
        limits = settings(
            max_examples=each,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )

        @with_seed(args.seed)
        @limits
        @given(cases)
        def attempt(case):
            run(kind, case, figures, sentences, tracebacks)  # noqa: B023

        attempt()
    table = {f'{kind}, {outcome}': number for (kind, outcome), number in sorted(figures.items())}
    print(json.dumps(table, indent=1))
    for text in dict.fromkeys(tracebacks):
        print(text)
    if args.out:
        for name, text in dict(figures=json.dumps(table, indent=1), sentences='\n'.join(sorted(sentences))).items():
            with write_whole(args.out / f'{name}.txt') as path:
                path.write_text(text + '\n')
    sys.exit(bool(tracebacks))


if __name__ == '__main__':
    main()
