"""Training with everything on the device: on a GPU a step is recorded once and replayed."""

import math
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor


class DivergedError(ValueError):
    """The loss of a training is not finite."""


# Steps before the recording, which needs memory and kernels to be there; their learning rate is 0.
WARM_UP = 3
REPORTS = 10  # of a training


def machine(device: str) -> str:
    """Say on what and with which code something is computed."""
    command = ['git', 'rev-parse', '--short', 'HEAD']
    commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    name = torch.cuda.get_device_name() if device == 'cuda' else 'CPU'
    return f'{name}, PyTorch {torch.__version__}, commit {commit.stdout.strip()}'


def announce(what: str) -> Callable[[int, float, float], None]:
    """Gives a function that prints how a training goes: the step, the loss and about how many seconds are left."""

    def print_loss(step: int, loss: float, left: float) -> None:
        print(f'{what}, step {step}, loss {loss:.4f}, about {left / 60:.0f} minutes left', flush=True)

    return print_loss


def autocast(device: str) -> object:
    """bfloat16 on a GPU, float32 on a CPU; a recording must not keep the weights that autocast casts."""
    return torch.autocast('cuda', torch.bfloat16, cache_enabled=False) if device == 'cuda' else nullcontext()


def layer_groups(model: nn.Module, lr: float, decay: float, weight_decay: float) -> list[dict]:
    """Group parameters by layer and by whether they are decayed.

    Args:
        model (nn.Module): A model with a ``backbone`` that may know its layers.
        lr (float): Learning rate of the last layer.
        decay (float): Learning rate of each layer as a share of that of the next.
        weight_decay (float): Of what has more than one dimension and is no position embedding.

    Returns:
        list[dict]: Groups, with the peak of their learning rate under 'peak'.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = 1.0
        if decay != 1:
            layer, num_layers = model.backbone.get_layer_depth(name, 'backbone.')
            scale = decay ** (num_layers - 1 - layer)
        decayed = parameter.ndim > 1 and 'pos_embed' not in name
        key = (scale, decayed)
        group = dict(params=[], peak=lr * scale, weight_decay=weight_decay if decayed else 0.0)
        groups.setdefault(key, group)['params'].append(parameter)
    return list(groups.values())


class Training:
    """A model in training with AdamW: a tenth of warm-up, then half a cosine down to 0.

    Args:
        groups (list[dict]): Parameter groups, as :func:`layer_groups` makes them.
        loss (Callable[[], Tensor]): Draws a batch and gives its loss, a scalar, without reading anything back.
        steps (int): Number of steps.
        device (str): 'cuda' or 'cpu'.
        betas (tuple[float, float]): Of AdamW.
        recordable (bool): Whether a GPU can record a step. Defaults to True.
    """

    def __init__(
        self,
        groups: list[dict],
        loss: Callable[[], Tensor],
        steps: int,
        device: str,
        betas: tuple[float, float] = (0.9, 0.999),
        recordable: bool = True,
    ) -> None:
        self.recorded = recordable and device == 'cuda'
        for group in groups:
            group['lr'] = torch.zeros((), device=device) if self.recorded else 0.0
        self.optimizer = torch.optim.AdamW(groups, betas=betas, capturable=self.recorded)
        self.loss, self.steps, self.device = loss, steps, device
        self.graph, self.value = None, None

    def take_step(self) -> Tensor:
        """Take a step with the gradients that are there and those of a batch; gives the loss."""
        with autocast(self.device):
            loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _record(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.optimizer.zero_grad(set_to_none=True)
                self.take_step()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.value = self.take_step()

    def run(self, say: Callable[[int, float, float], None]) -> float:
        """Take all steps.

        Args:
            say (Callable[[int, float, float], None]): Is told the step, the loss and about how many seconds are left,
                :data:`REPORTS` times and after the last step.

        Returns:
            float: Seconds.

        Raises:
            DivergedError: If the loss is not finite.
        """
        if self.recorded:
            self._record()
        interval = max(1, self.steps // REPORTS)
        start = time.perf_counter()
        for i in range(self.steps):
            progress = (i + 0.5) / self.steps
            factor = progress / 0.1 if progress < 0.1 else 0.5 + 0.5 * math.cos(math.pi * (progress - 0.1) / 0.9)
            for group in self.optimizer.param_groups:
                if self.graph is None:
                    group['lr'] = group['peak'] * factor
                else:
                    group['lr'].fill_(group['peak'] * factor)
            if self.graph is None:
                self.optimizer.zero_grad()
                self.value = self.take_step()
            else:
                self.graph.replay()
            if (i + 1) % interval == 0 or i + 1 == self.steps:
                loss = self.value.item()
                if not math.isfinite(loss):
                    raise DivergedError(f'The loss is {loss} in step {i + 1}; lower the learning rate.')
                say(i + 1, loss, (time.perf_counter() - start) * (self.steps / (i + 1) - 1))
        return time.perf_counter() - start


def busy_seconds(training: Training, steps: int = 5) -> float:
    """Measure how long a step of a training keeps the device busy, at a learning rate of 0.

    Args:
        training (Training): A new one.
        steps (int): Number of steps to measure, after :data:`WARM_UP` others. Defaults to 5.

    Returns:
        float: Seconds: of a CPU its time of all threads, of a GPU the sum over the kernels.
    """

    def take(number: int) -> None:
        for _ in range(number):
            training.optimizer.zero_grad()
            training.take_step()

    take(WARM_UP)
    if training.device == 'cpu':
        start = time.process_time()
        take(steps)
        return (time.process_time() - start) / steps
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        take(steps)
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profiler.key_averages()) / steps / 1e6
