from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS, RUNNERS
from PIL import Image
from torch.utils.data import DataLoader

from mmconvmae.datasets import ImageFile, worker_init_fn
from mmconvmae.registry import DATA_SAMPLERS, DATASETS

CROPS = [
    dict(type='mmconvmae.LoadRandomResizedCrop', scale=16),
    dict(type='mmpretrain.PackInputs'),
]


@pytest.fixture
def folder(tmp_path):
    """Five photographs, each of another brightness."""
    generator = np.random.default_rng(0)
    for n in range(5):
        noise = generator.integers(0, 20, (40, 50, 3), dtype=np.uint8)
        (tmp_path / 'images').mkdir(exist_ok=True)
        Image.fromarray(noise + np.uint8(50 * n)).save(tmp_path / f'images/{n}.png')
    return tmp_path / 'images'


def config(folder, repeats=3, **kwargs):
    images = dict(
        type='mmconvmae.ImageFolder', data_root=str(folder), pipeline=[dict(type='mmconvmae.LoadWholeImage')], **kwargs
    )
    return dict(type='mmconvmae.RepeatedAugmentation', dataset=images, pipeline=CROPS, repeats=repeats)


def sampler(dataset, **kwargs):
    return DATA_SAMPLERS.build(dict(type='mmconvmae.RepeatedSampler', dataset=dataset, seed=0, **kwargs))


def image_of(inputs):
    """Number of the photograph that a crop is of."""
    return int(inputs.float().mean() / 50)


def test_each_image_is_decoded_once_for_all_its_crops(folder):
    dataset = DATASETS.build(config(folder))
    assert len(dataset) == 15
    order = list(sampler(dataset))
    assert sorted(order) == list(range(15)) != order
    with mock.patch.object(ImageFile, 'read', autospec=True, side_effect=ImageFile.read) as read:
        crops = [dataset[index]['inputs'] for index in order]
    assert read.call_count == 5
    assert [image_of(crop) for crop in crops] == [index // 3 for index in order]
    assert [order[i] // 3 for i in range(0, 15, 3)] == [order[i] // 3 for i in range(2, 15, 3)]
    assert all(not torch.equal(crops[i], crops[i + 1]) for i in range(14))


def test_crops_are_those_of_an_image_loaded_each_time(folder):
    """For the same random numbers: nothing of one crop stays for the next."""
    dataset = DATASETS.build(config(folder))
    plain = DATASETS.build(dict(type='mmconvmae.ImageFolder', data_root=str(folder), pipeline=CROPS))
    for index in (6, 7, 8, 0):
        crops = []
        for part, i in ((dataset, index), (plain, index // 3)):
            np.random.seed(index)
            crops.append(part[i]['inputs'])
        assert torch.equal(*crops)


def test_processes_share_images_out(folder):
    dataset = DATASETS.build(config(folder))
    shares = []
    for rank in range(2):
        with mock.patch('mmengine.dataset.sampler.get_dist_info', return_value=(rank, 2)):
            part = sampler(dataset)
            shares.append(list(part))
            assert len(part) == len(shares[-1]) == 9  # of 3 images; the fifth has no partner, so one comes twice
    assert {index // 3 for share in shares for index in share} == set(range(5))
    for share in shares:
        assert all(share[i : i + 3] == [share[i], share[i] + 1, share[i] + 2] for i in range(0, 9, 3))


def test_epochs_differ_and_can_be_drawn_again(folder):
    """With workers, whatever was drawn before, as EpochSeedHook and the runner seed them."""
    dataset = DATASETS.build(config(folder))
    order = sampler(dataset)
    loader = DataLoader(
        dataset, 6, sampler=order, num_workers=2, worker_init_fn=worker_init_fn, collate_fn=default_collate
    )

    def epoch(number):
        torch.manual_seed(number)
        order.set_epoch(number)
        return torch.cat([batch['inputs'] for batch in loader])

    first, second = epoch(0), epoch(1)
    assert len(first) == 15 and not torch.equal(first, second)
    assert torch.equal(epoch(1), second) and torch.equal(epoch(0), first)


@MODELS.register_module()
class BrightnessModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.layer(torch.stack(inputs).float().mean((1, 2, 3))[:, None] / 255).mean())


@HOOKS.register_module()
class RecordCropsHook(Hook):
    def __init__(self):
        self.crops = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.crops[runner.iter] = torch.stack(data_batch['inputs'])


def train(folder, work_dir, epochs, **more):
    runner = RUNNERS.build(
        Config(
            dict(
                model=dict(type='BrightnessModel'),
                work_dir=str(work_dir),
                train_dataloader=dict(
                    batch_size=6,
                    num_workers=1,
                    persistent_workers=False,
                    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
                    dataset=config(folder),
                    sampler=dict(type='mmconvmae.RepeatedSampler', shuffle=True),
                ),
                train_cfg=dict(by_epoch=True, max_epochs=epochs),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                auto_scale_lr=dict(enable=True, base_batch_size=12),
                custom_hooks=[dict(type='mmconvmae.EpochSeedHook'), dict(type='RecordCropsHook')],
                default_scope='mmengine',
                randomness=dict(seed=3),
                runner_type='mmconvmae.ScheduleRunner',
                experiment_name=work_dir.name,
                **more,
            )
        )
    )
    runner.train()
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, RecordCropsHook))
    return hook.crops, runner.optim_wrapper.get_lr()['lr'][0]


def test_resumed_run_has_the_crops_of_an_uninterrupted_one(folder, tmp_path):
    whole, rate = train(folder, tmp_path / 'whole', 3)
    assert rate == pytest.approx(0.05)  # a batch of 6 crops, and not of 2 images or of 18 crops
    assert len(whole) == 9  # 3 batches an epoch, of 5 images with 3 crops each
    resumed, _ = train(folder, tmp_path / 'resumed', 3, load_from=str(tmp_path / 'whole/epoch_1.pth'), resume=True)
    assert sorted(resumed) == list(range(3, 9))
    for number, crops in resumed.items():
        assert torch.equal(crops, whole[number])


def test_images_of_different_depth_are_still_found_out(folder):
    Image.fromarray(np.full((40, 50), 3000, np.uint16)).save(folder / 'deep.png')
    dataset = DATASETS.build(config(folder))
    dataset[0]
    with pytest.raises(ValueError, match='have different depths'):
        dataset[15]


@pytest.mark.parametrize('repeats', [0, -1])
def test_less_than_one_crop(folder, repeats):
    with pytest.raises(ValueError, match=f'`repeats` is {repeats}; an image has 1 sample or more'):
        DATASETS.build(config(folder, repeats))


def test_sampler_of_another_data_set(folder):
    with pytest.raises(TypeError, match='the data set is a ImageFolder; use DefaultSampler'):
        sampler(DATASETS.build(config(folder)).images)
