"""What the benchmarks share: training steps, clock, memory, tables and charts."""

import resource
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import matplotlib
import torch
import torch.nn as nn
from torch import Tensor

from mmconvmae.utils import markdown_table, write_whole

matplotlib.use('Agg')
import matplotlib.pyplot as plt


def take_step(model: nn.Module, inputs: Tensor, dtype: str, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Take one pretraining step and wait for it: forward, backward, and what an optimiser does.

    Args:
        model (nn.Module): A model with a ``loss`` of inputs and data samples, which it is given none of.
        inputs (Tensor): A batch.
        dtype (str): Type of autocast; with 'float32' there is none.
        optimizer (torch.optim.Optimizer, optional): The optimiser. Defaults to None.
    """
    with torch.autocast(inputs.device.type, getattr(torch, dtype)) if dtype != 'float32' else nullcontext():
        loss = model.loss(inputs, None)['loss']
    loss.backward()
    if optimizer is not None:
        optimizer.step()
    loss.item()
    model.zero_grad()  # now, because others need the memory


def timed(step: Callable[[], object], device: str) -> float:
    """Time a call, its work on the device included.

    Args:
        step (Callable): What to call.
        device (str): 'cuda' or 'cpu'.

    Returns:
        float: Seconds.
    """
    start = time.perf_counter()
    step()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory_gib(device: str) -> float:
    """Tell the peak of memory until now.

    Args:
        device (str): 'cuda' or 'cpu'.

    Returns:
        float: GiB of tensors on a GPU, or of this process on a CPU.
    """
    if device == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def figures_table(columns: Iterable[tuple[str, str, Callable]], rows: list[dict], reference: str) -> str:
    """Write figures as a Markdown table.

    Args:
        columns (Iterable[tuple[str, str, Callable]]): Of each column its heading, in which ``{reference}`` may stand,
            the key of a row, and how the value is printed. Those that the first row does not have are left out.
        rows (list[dict]): Figures, and what they are of under 'name'. None is printed as a dash.
        reference (str): What ratios are to.

    Returns:
        str: The table.
    """
    columns = [column for column in columns if column[1] in rows[0]]
    return markdown_table(
        ['', *(heading.format(reference=reference) for heading, _, _ in columns)],
        [[row['name'], *('-' if row[key] is None else form(row[key]) for _, key, form in columns)] for row in rows],
    )


def draw_bars(names: list[str], panels: dict[str, list[float]], path: Path, title: str | None = None) -> None:
    """Draw figures as horizontal bars.

    Args:
        names (list[str]): What the bars stand for, from top to bottom.
        panels (dict[str, list[float]]): The lengths of each panel's bars, by what they are.
        path (Path): Picture to write, whole or not at all.
        title (str, optional): Title. Defaults to None: there is none.

    Raises:
        OSError: If the picture cannot be written.
        ValueError: If its name ends in no format that there is.
    """
    size = (3 + 3 * len(panels), 0.5 * len(names) + 1.3)
    figure, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=size, layout='constrained')
    for axis, (label, lengths) in zip(axes[0], panels.items()):
        axis.bar_label(axis.barh(names, lengths), fmt='%.3g', padding=3)
        axis.margins(x=0.15)
        axis.set_xlabel(label)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    with write_whole(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix[1:] or 'png')
