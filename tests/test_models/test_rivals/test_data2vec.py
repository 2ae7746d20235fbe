"""data2vec against a few lines, on a BEiT small enough to follow."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from mmconvmae.registry import MODELS

MOMENTUM, BLOCKS = 0.1, (1, 2)


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = dict(
        type='BEiTPretrainViT',
        arch=dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48),
        img_size=64,
        out_indices=BLOCKS,
        final_norm=False,
    )
    head = dict(type='mmconvmae.Data2VecHead', embed_dims=24)
    model = MODELS.build(dict(type='mmconvmae.Data2Vec', backbone=backbone, head=head, momentum=MOMENTUM))
    model.init_weights()
    for parameter in (*model.backbone.parameters(), *model.head.parameters()):
        torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


@pytest.fixture
def samples():
    samples = []
    for i in range(2):
        samples.append(DataSample())
        samples[i].mask = torch.zeros(4, 4, dtype=torch.int64)
        samples[i].mask.view(-1)[torch.tensor([[0, 5, 6, 11], [1, 2, 3, 15]])[i]] = 1
    return samples


def outputs_of_blocks(backbone, images):
    """What each block gives, class token included, by hooks and so before whatever comes after the last."""
    outputs = []
    hooks = [layer.register_forward_hook(lambda _, __, out: outputs.append(out)) for layer in backbone.layers]
    backbone(images, None)
    [hook.remove() for hook in hooks]
    return outputs


def normalise(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def test_steps_equal_a_few_lines(model, samples):
    """Target, loss and average over three steps; the learning rate is large, so that the average matters."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    average = copy.deepcopy(model.backbone).requires_grad_(False)
    average.eval()
    masks = torch.stack([sample.mask for sample in samples]).flatten(1).bool()
    for step in range(3):
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            blocks = outputs_of_blocks(average, images)
            target = normalise(sum(normalise(blocks[i][:, 1:]) for i in BLOCKS) / len(BLOCKS))
        student = model.backbone(images, masks.view(2, 4, 4))[-1][:, 1:]
        distance = (model.head.fc(model.head.norm(student)) - target)[masks].abs()
        expected = torch.where(distance < 2, distance**2 / 4, distance - 1).mean()

        loss = model.loss(images, samples)['loss']
        torch.testing.assert_close(model.compute_target(images), target, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.backbone.parameters()):
                mean.mul_(1 - MOMENTUM).add_(parameter, alpha=MOMENTUM)
    # The last step enters the teacher with the next batch.
    model.loss(images, samples)
    for ours, theirs in zip(model.teacher.module.parameters(), average.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        assert ours.grad is None and not ours.requires_grad


def test_the_student_does_not_see_removed_patches(model, samples):
    model.backbone.eval()
    images = torch.randn(2, 3, 64, 64)
    mask = torch.stack([sample.mask for sample in samples])
    removed = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None].bool()
    seen = model.backbone(images, mask)[-1]
    assert torch.equal(seen, model.backbone(torch.where(removed, 7.0, images), mask)[-1])
    assert not torch.equal(seen, model.backbone(torch.where(removed, images, 7.0), mask)[-1])
    # The teacher does.
    assert not torch.equal(model.compute_target(images), model.compute_target(torch.where(removed, 7.0, images)))


def test_the_teacher_has_no_dropout_and_goes_on_from_a_checkpoint(model, samples):
    images, other = torch.randn(2, 3, 64, 64), copy.deepcopy(model)
    assert not any(module.training for module in model.teacher.modules()) and model.backbone.training
    model.loss(images, samples)
    for parameter in model.backbone.parameters():
        torch.nn.init.normal_(parameter)
    model.loss(images, samples)
    other.load_state_dict(model.state_dict())
    for each in (model, other):
        each.loss(images, samples)
    assert all(torch.equal(*pair) for pair in zip(model.teacher.parameters(), other.teacher.parameters()))


def test_evaluation_leaves_the_teacher_alone(model, samples):
    images = torch.randn(2, 3, 64, 64)
    model.loss(images, samples)
    before = copy.deepcopy(model.teacher.state_dict())
    for parameter in model.backbone.parameters():
        torch.nn.init.normal_(parameter)
    model.eval().loss(images, samples)
    assert all(torch.equal(value, before[name]) for name, value in model.teacher.state_dict().items())


@pytest.mark.parametrize('change', [dict(momentum=2), dict(momentum='fast')])
def test_wrong_momentum(change):
    with pytest.raises(ValueError, match='momentum'):
        backbone = dict(type='BEiTPretrainViT', arch='base', final_norm=False)
        MODELS.build(
            dict(type='mmconvmae.Data2Vec', backbone=backbone, head=dict(type='mmconvmae.Data2VecHead'), **change)
        )


def test_smooth_l1_is_pytorchs_at_both_sides_of_beta():
    head = MODELS.build(dict(type='mmconvmae.Data2VecHead', embed_dims=4))
    torch.nn.init.zeros_(head.fc.weight)
    torch.nn.init.zeros_(head.fc.bias)
    target = torch.tensor([[[1.0, 3.0, -1.0, -5.0], [9.0, 9.0, 9.0, 9.0]]])
    loss = head.loss(torch.randn(1, 3, 4), target, torch.tensor([[[1, 0]]]))
    assert loss.item() == pytest.approx((1 / 4 + 2 + 1 / 4 + 4) / 4)
    assert loss.item() == F.smooth_l1_loss(torch.zeros(4), target[0, 0], beta=2.0).item()
