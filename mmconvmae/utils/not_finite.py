from mmengine.logging import MessageHub
from mmengine.optim import BaseOptimWrapper


def not_finite_error(what: str, optim_wrapper: BaseOptimWrapper) -> FloatingPointError:
    """Make the error that stops a run which has left the finite numbers.

    Where the run is, and what it saved last, are read from mmengine's current message hub.

    Args:
        what (str): What is not finite, and the word that ties it to the iteration, such as ``'loss is nan in'``.
        optim_wrapper (BaseOptimWrapper): The optimiser, for its learning rates.

    Returns:
        FloatingPointError: The error, to be raised.
    """
    hub = MessageHub.get_current_instance()
    iteration, epoch = hub.get_info('iter', 0) + 1, hub.get_info('epoch', 0) + 1
    rates = ', '.join(f'{rate[0]:.3g}' for rate in optim_wrapper.get_lr().values())
    return FloatingPointError(
        f'{what} iteration {iteration} (epoch {epoch}, learning rate {rates}): training stops here. Last good '
        f'checkpoint: {hub.get_info("last_ckpt", "none")}. Resume from it with a lower learning rate, or with bfloat16 '
        'or float32 if this was float16.'
    )
