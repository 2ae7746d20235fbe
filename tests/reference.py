"""ConvMAE written down plainly from the paper: dense, channels first, with loops where they are clearer.

It takes its parameters from a state dict of ours and shares no code with the package.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _conv(sd: dict, name: str, x: Tensor, **kwargs) -> Tensor:
    return F.conv2d(x, sd[f'{name}.weight'], sd[f'{name}.bias'], **kwargs)


def _linear(sd: dict, name: str, x: Tensor) -> Tensor:
    return F.linear(x, sd[f'{name}.weight'], sd[f'{name}.bias'])


def _norm(sd: dict, name: str, x: Tensor, eps: float) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / torch.sqrt(var + eps) * sd[f'{name}.weight'] + sd[f'{name}.bias']


def _channel_norm(sd: dict, name: str, x: Tensor) -> Tensor:
    return _norm(sd, name, x.permute(0, 2, 3, 1), 1e-5).permute(0, 3, 1, 2)


def _conv_block(sd: dict, name: str, x: Tensor, visible: Tensor) -> Tensor:
    kernel = sd[f'{name}.depthwise_conv.weight']
    y = visible * _conv(sd, f'{name}.conv1', _channel_norm(sd, f'{name}.ln1', x))
    y = _conv(sd, f'{name}.depthwise_conv', y, padding=kernel.shape[-1] // 2, groups=len(kernel))
    x = x + _conv(sd, f'{name}.conv2', y)
    y = F.gelu(_conv(sd, f'{name}.ffn.0', _channel_norm(sd, f'{name}.ln2', x)))
    return x + _conv(sd, f'{name}.ffn.2', y)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + bias, -1) @ v


def biased_attention(table: Tensor, edge: int):
    """Attention of a square grid with a number from the table for each pair of positions and head."""
    places = [(y, x) for y in range(edge) for x in range(edge)]
    offsets = [[(yq - yk + edge - 1) * (2 * edge - 1) + xq - xk + edge - 1 for yk, xk in places] for yq, xq in places]
    index = torch.tensor(offsets)
    return lambda head, q, k, v: _attend(q, k, v, table[index, head])


def _transformer_block(
    sd: dict, name: str, x: Tensor, num_heads: int, attend=lambda head, q, k, v: _attend(q, k, v), eps: float = 1e-6
) -> Tensor:
    y = _linear(sd, f'{name}.attn.qkv', _norm(sd, f'{name}.ln1', x, eps))
    heads = zip(*(part.chunk(num_heads, -1) for part in y.chunk(3, -1)))
    y = torch.cat([attend(head, q, k, v) for head, (q, k, v) in enumerate(heads)], -1)
    x = x + _linear(sd, f'{name}.attn.proj', y) * sd.get(f'{name}.attn.gamma1.weight', 1)
    y = F.gelu(_linear(sd, f'{name}.ffn.layers.0.0', _norm(sd, f'{name}.ln2', x, eps)))
    return x + _linear(sd, f'{name}.ffn.layers.1', y) * sd.get(f'{name}.ffn.gamma2.weight', 1)


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], window: tuple[int, int], bias=lambda q, dy, dx: 0
) -> Tensor:
    """Attention of one head, one query at a time and one key of its window at a time.

    q, k and v are (B, H * W, d); ``bias`` takes the query (B, d) and how many rows and columns it is from the key.
    """
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    rows = []
    for n, (yq, xq) in enumerate(places):
        scores, values = [], []
        for m, (yk, xk) in enumerate(places):
            if yq // window[0] == yk // window[0] and xq // window[1] == xk // window[1]:
                score = (q[:, n] * k[:, m]).sum(-1) / q.shape[-1] ** 0.5
                scores.append(score + bias(q[:, n], yq - yk, xq - xk))
                values.append(v[:, m])
        weights = torch.softmax(torch.stack(scores, 1), 1)
        rows.append((weights[:, :, None] * torch.stack(values, 1)).sum(1))
    return torch.stack(rows, 1)


def _depth(sd: dict, blocks: str) -> int:
    return len({name.split('.')[blocks.count('.')] for name in sd if name.startswith(blocks)})


def kept_blocks(noise: Tensor, ratio: float) -> Tensor:
    """Blocks with the smallest numbers, (B, N), smallest first."""
    return _smallest(noise, int(noise.shape[1] * (1 - ratio)))


def _smallest(noise: Tensor, number: int) -> Tensor:
    return torch.tensor([sorted(range(len(row)), key=row.__getitem__)[:number] for row in noise.tolist()])


def encode(
    sd: dict,
    images: Tensor,
    num_heads: int,
    kept: Tensor | None = None,
    masked_conv: bool = True,
    attention_of_block=lambda n, grid: lambda head, q, k, v: _attend(q, k, v),
    eps: float = 1e-6,
) -> tuple:
    """Stage 1 and 2 as maps (B, C, H, W), stage 3 as tokens (B, L or N, C) of all or the kept blocks."""
    sizes = [sd[f'backbone.stages.{i}.patch_embed.projection.weight'].shape[-1] for i in range(3)]
    stride = sizes[0] * sizes[1] * sizes[2]
    rows, columns = images.shape[2] // stride, images.shape[3] // stride
    visible = torch.ones(len(images), 1, rows, columns)
    if kept is not None and masked_conv:
        visible = torch.zeros(len(images), rows * columns).scatter(1, kept, 1.0).view_as(visible)
    x, outs = images, []
    for i in range(3):
        x = _conv(sd, f'backbone.stages.{i}.patch_embed.projection', x, stride=sizes[i])
        x = F.gelu(_channel_norm(sd, f'backbone.stages.{i}.patch_embed.norm', x))
        if i < 2:
            mask = F.interpolate(visible, size=x.shape[2:], mode='nearest')
            for n in range(_depth(sd, f'backbone.stages.{i}.blocks.')):
                x = _conv_block(sd, f'backbone.stages.{i}.blocks.{n}', x, mask)
            outs.append(x)
    pos_embed = sd['backbone.stages.2.pos_embed.weight']
    x = _linear(sd, 'backbone.stages.2.token_embed', x.flatten(2).transpose(1, 2)) + pos_embed
    if kept is not None:
        x = torch.stack([tokens[ids] for tokens, ids in zip(x, kept)])
    for n in range(_depth(sd, 'backbone.stages.2.blocks.')):
        attend = attention_of_block(n, (rows, columns))
        x = _transformer_block(sd, f'backbone.stages.2.blocks.{n}', x, num_heads, attend, eps)
    return *outs, x


def pretrain_loss(
    sd: dict,
    images: Tensor,
    noise: Tensor,
    ratio: float,
    num_heads: int,
    decoder_heads: int,
    norm_pix: bool = True,
    predict_ratio: float = 1,
) -> Tensor:
    """The loss of pretraining with the multi-scale decoder, of the removed blocks with the next smallest numbers."""
    kept = kept_blocks(noise, ratio)
    num_removed = noise.shape[1] - kept.shape[1]
    decoded = _smallest(noise, kept.shape[1] + round(predict_ratio * num_removed)).tolist()
    *maps, latent = encode(sd, images, num_heads, kept)
    for i, x in enumerate(maps):
        kernel = sd[f'neck.fusion.projections.{i}.weight']
        x = _conv(sd, f'neck.fusion.projections.{i}', x, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
        latent = latent + torch.stack([tokens[ids] for tokens, ids in zip(x, kept)])
    latent = _linear(sd, 'neck.decoder_embed', _norm(sd, 'neck.fusion.norm', latent, 1e-6))
    rows = []
    for visible, ids in zip(latent, kept.tolist()):
        tokens = [sd['neck.mask_token'][0, 0]] * noise.shape[1]
        for n, token in zip(ids, visible):
            tokens[n] = token
        rows.append(torch.stack(tokens))
    x = torch.stack(rows) + sd['neck.decoder_pos_embed.weight']
    x = torch.stack([tokens[ids] for tokens, ids in zip(x, decoded)])
    for n in range(_depth(sd, 'neck.decoder_blocks.')):
        x = _transformer_block(sd, f'neck.decoder_blocks.{n}', x, decoder_heads)
    pred = _linear(sd, 'neck.decoder_pred', _norm(sd, 'neck.decoder_norm', x, 1e-6))

    size = round((pred.shape[-1] / 3) ** 0.5)
    losses = []
    for image, patches, ids, places in zip(images, pred, kept.tolist(), decoded):
        columns = image.shape[2] // size
        for n, patch in zip(places, patches):
            if n in ids:
                continue
            top, left = n // columns * size, n % columns * size
            target = image[:, top : top + size, left : left + size].permute(1, 2, 0).flatten()
            if norm_pix:
                target = (target - target.mean()) / (target.var() + 1e-6) ** 0.5
            losses.append(((patch - target) ** 2).mean())
    return torch.stack(losses).mean()
