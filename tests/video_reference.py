"""VideoConvMAE written down plainly: dense, channels first, tokens slot by slot, with loops where they are clearer.

It takes its parameters from a state dict of ours and shares no code with the package.
"""

import torch
import torch.nn.functional as F
from reference import _depth, _linear, _norm, _transformer_block
from torch import Tensor


def _conv(sd: dict, name: str, x: Tensor, **kwargs) -> Tensor:
    """A convolution in three dimensions; one that is stored for images has frame after frame in its channels."""
    weight = sd[f'{name}.weight']
    if weight.dim() == 4:
        weight = weight.unflatten(1, (-1, x.shape[1])).transpose(1, 2)  # (C_out, C_in, frames, rows, columns)
    return F.conv3d(x, weight, sd[f'{name}.bias'], **kwargs)


def _channel_norm(sd: dict, name: str, x: Tensor) -> Tensor:
    return _norm(sd, name, x.movedim(1, -1), 1e-5).movedim(-1, 1)


def _conv_block(sd: dict, name: str, x: Tensor, visible: Tensor) -> Tensor:
    kernel = sd[f'{name}.depthwise_conv.weight']
    y = visible * _conv(sd, f'{name}.conv1', _channel_norm(sd, f'{name}.ln1', x))
    padding = [n // 2 for n in kernel.shape[2:]]
    y = F.conv3d(y, kernel, sd[f'{name}.depthwise_conv.bias'], padding=padding, groups=len(kernel))
    x = x + _conv(sd, f'{name}.conv2', y)
    y = F.gelu(_conv(sd, f'{name}.ffn.0', _channel_norm(sd, f'{name}.ln2', x)))
    return x + _conv(sd, f'{name}.ffn.2', y)


def encode(sd: dict, clips: Tensor, num_heads: int, kept: Tensor | None = None) -> tuple:
    """Stages 1 and 2 as maps (B, C, T, H, W), stage 3 as tokens (B, T, L or N, C) of all or the kept tubes."""
    kernels = [sd[f'backbone.stages.{i}.patch_embed.projection.weight'] for i in range(3)]
    sizes = [kernel.shape[-1] for kernel in kernels]
    tubelet = kernels[0].shape[1] // clips.shape[1]
    stride = sizes[0] * sizes[1] * sizes[2]
    rows, columns = clips.shape[3] // stride, clips.shape[4] // stride
    visible = torch.ones(len(clips), rows * columns).to(clips)
    if kept is not None:
        visible = torch.zeros_like(visible).scatter(1, kept, 1.0)
    visible = visible.view(-1, 1, 1, rows, columns)
    x, outs = clips, []
    for i, size in enumerate(sizes):
        frames = tubelet if i == 0 else 1
        x = _conv(sd, f'backbone.stages.{i}.patch_embed.projection', x, stride=(frames, size, size))
        x = F.gelu(_channel_norm(sd, f'backbone.stages.{i}.patch_embed.norm', x))
        if i < 2:
            mask = F.interpolate(visible, size=(1, *x.shape[3:]), mode='nearest')
            for n in range(_depth(sd, f'backbone.stages.{i}.blocks.')):
                x = _conv_block(sd, f'backbone.stages.{i}.blocks.{n}', x, mask)
            outs.append(x)
    x = _linear(sd, 'backbone.stages.2.token_embed', x.flatten(3).permute(0, 2, 3, 1))  # (B, T, L, C)
    x = x + sd['backbone.stages.2.pos_embed.weight']
    if kept is not None:
        x = torch.stack([tokens[:, ids] for tokens, ids in zip(x, kept)])
    slots, x = x.shape[1], x.flatten(1, 2)
    for n in range(_depth(sd, 'backbone.stages.2.blocks.')):
        x = _transformer_block(sd, f'backbone.stages.2.blocks.{n}', x, num_heads)
    return *outs, x.unflatten(1, (slots, -1))


def pretrain_loss(
    sd: dict, clips: Tensor, kept: Tensor, num_heads: int, decoder_heads: int, norm_pix: bool | str, encode=encode
) -> Tensor:
    """The loss of pretraining, with both scales or, where the decoder has no projections, one; of any encoder."""
    *maps, latent = encode(sd, clips, num_heads, kept)
    for i, x in enumerate(maps):
        if f'neck.fusion.projections.{i}.weight' in sd:
            edge = sd[f'neck.fusion.projections.{i}.weight'].shape[-1]
            x = _conv(sd, f'neck.fusion.projections.{i}', x, stride=(1, edge, edge)).flatten(3).permute(0, 2, 3, 1)
            latent = latent + torch.stack([tokens[:, ids] for tokens, ids in zip(x, kept)])
    latent = _linear(sd, 'neck.decoder_embed', _norm(sd, 'neck.fusion.norm', latent, 1e-6))
    pos_embed = sd['neck.decoder_pos_embed.weight']  # (1, T, L, D)
    num_blocks = pos_embed.shape[2]
    x = sd['neck.mask_token'][0, 0].repeat(*latent.shape[:2], num_blocks, 1)
    x = torch.stack([tokens.index_copy(1, ids, seen) for tokens, ids, seen in zip(x, kept, latent)]) + pos_embed
    x = x.flatten(1, 2)
    for n in range(_depth(sd, 'neck.decoder_blocks.')):
        x = _transformer_block(sd, f'neck.decoder_blocks.{n}', x, decoder_heads)
    pred = _linear(sd, 'neck.decoder_pred', _norm(sd, 'neck.decoder_norm', x, 1e-6)).unflatten(1, (-1, num_blocks))

    frames = clips.shape[2] // pred.shape[1]
    size = round((pred.shape[-1] / frames / clips.shape[1]) ** 0.5)
    losses = []
    for clip, cubes, ids in zip(clips, pred, kept.tolist()):
        columns = clip.shape[3] // size
        for slot in range(pred.shape[1]):
            for n in set(range(num_blocks)) - set(ids):
                top, left = n // columns * size, n % columns * size
                cube = clip[:, slot * frames : (slot + 1) * frames, top : top + size, left : left + size]
                if norm_pix == 'channel':
                    mean, std = cube.mean((1, 2, 3), keepdim=True), cube.flatten(1).std(1)[:, None, None, None]
                    cube = (cube - mean) / (std + 1e-6)
                elif norm_pix:
                    cube = (cube - cube.mean()) / (cube.var() + 1e-6) ** 0.5
                losses.append((cubes[slot, n] - cube.permute(2, 3, 1, 0).flatten()).square().mean())
    return torch.stack(losses).mean()
