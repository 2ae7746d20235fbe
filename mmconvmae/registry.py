"""Registry nodes of mmconvmae.

Each but ``CHECKS`` is a child of mmengine's node of the same name, with the scope ``mmconvmae``. A config of any
OpenMMLab library reaches what is registered here through ``custom_imports = dict(imports=['mmconvmae'])`` and a
prefixed type, such as ``type='mmconvmae.ConvViT'``.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

# Backbones, necks, heads and algorithms.
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmconvmae', locations=['mmconvmae.models'])
# Mask generators.
TASK_UTILS = Registry('task util', parent=MMENGINE_TASK_UTILS, scope='mmconvmae', locations=['mmconvmae.models'])
# Checks of people's own data, for which mmengine has no node.
CHECKS = Registry('check', scope='mmconvmae', locations=['mmconvmae.checks'])
# Where images and videos come from.
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmconvmae', locations=['mmconvmae.datasets'])
# In which order samples come.
DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='mmconvmae', locations=['mmconvmae.datasets']
)
# Steps of a pipeline of images or clips, and what chooses the frames of a clip.
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='mmconvmae', locations=['mmconvmae.datasets'])
# Functions that a config names, such as a dataloader's ``worker_init_fn``.
FUNCTIONS = Registry('function', parent=MMENGINE_FUNCTIONS, scope='mmconvmae', locations=['mmconvmae.datasets'])
# Things done at fixed points of a run.
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmconvmae', locations=['mmconvmae.hooks'])
# What makes the parameter groups of an optimiser.
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmconvmae',
    locations=['mmconvmae.optimizers'],
)
# What goes round an optimiser: precision, accumulation and clipping of gradients.
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='mmconvmae', locations=['mmconvmae.optimizers']
)
# What runs a config.
RUNNERS = Registry('runner', parent=MMENGINE_RUNNERS, scope='mmconvmae', locations=['mmconvmae.runner'])
# How a run of mmengine's FlexibleRunner spreads over several processes.
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope='mmconvmae', locations=['mmconvmae.strategies'])

__all__ = [
    'CHECKS',
    'DATASETS',
    'DATA_SAMPLERS',
    'FUNCTIONS',
    'HOOKS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'RUNNERS',
    'STRATEGIES',
    'TASK_UTILS',
    'TRANSFORMS',
]
