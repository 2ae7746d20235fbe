import torch

from mmconvmae.utils.old_torch import is_compiling


def captures_graph() -> bool:
    """Whether a graph is being captured, by ``torch.export``, ``torch.compile`` or ``torch.jit.trace``.

    What is captured runs with other batches, sizes and weights later, so it may neither look at the batch size nor keep
    what it has computed.
    """
    return is_compiling() or torch.jit.is_tracing()
