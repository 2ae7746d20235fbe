from collections.abc import Callable, Sequence
from copy import copy
from fractions import Fraction
from itertools import zip_longest
from math import ceil
from pathlib import Path
from types import SimpleNamespace

import torch.nn as nn
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.optim import LinearParamScheduler, OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmconvmae.checkpoint import DamagedCheckpointError, find_checkpoints, has_former_names
from mmconvmae.datasets import EndWithParent
from mmconvmae.registry import CHECKS, RUNNERS

# How far a scheduler has come, and what follows from begin and end; all else in its state is what it was built from.
PROGRESS = {'last_step', 'verbose', 'total_iters', '_global_step', '_last_value'}


class _Schedule:
    """A schedule as a config builds it, kept while that of a checkpoint is loaded over it.

    Args:
        optim_wrapper (OptimWrapper): The optimiser, with the rates that a run begins with.
        schedulers (list[_ParamScheduler]): Its schedulers, before a run's first iteration.
    """

    def __init__(self, optim_wrapper: OptimWrapper, schedulers: list[_ParamScheduler]) -> None:
        self.schedulers = [copy(scheduler) for scheduler in schedulers]
        # A scheduler of `lr` keeps more in a group, such as `initial_lr`.
        names = {'lr', *(scheduler.param_name for scheduler in schedulers)}
        ends = tuple(f'_{name}' for name in names)
        self.groups = [
            {key: value for key, value in group.items() if key in names or key.endswith(ends)}
            for group in optim_wrapper.param_groups
        ]

    def changes(self, saved: list[dict], rates: list[float]) -> list[str]:
        """Compare with the schedule of a checkpoint.

        Args:
            saved (list[dict]): States of its schedulers.
            rates (list[float]): Its learning rates, one for each parameter group.

        Returns:
            list[str]: What is different, in words.
        """
        if len(self.schedulers) != len(saved):
            return [f'schedulers {len(saved)} -> {len(self.schedulers)}']
        pairs = [(type(mine).__name__, state, mine.state_dict()) for mine, state in zip(self.schedulers, saved)]
        if not pairs:
            # Nothing but the optimiser has the rates.
            pairs = [('constant', dict(base_values=rates), dict(base_values=[group['lr'] for group in self.groups]))]
        changes = []
        for name, old, new in pairs:
            for key in sorted((old.keys() | new.keys()) - PROGRESS):
                before, after = old.get(key), new.get(key)
                if before != after and key == 'base_values':
                    before, after = next(pair for pair in zip_longest(before, after) if pair[0] != pair[1])
                if before != after:
                    changes.append(f'{key} of {name} {before} -> {after}')
        return changes

    def bring_forward(self, optim_wrapper: OptimWrapper, iterations: int, epoch_length: int) -> list[_ParamScheduler]:
        """Give an optimiser the rates after a number of iterations, to the last digit of an uninterrupted run.

        mmengine's schedulers compute each rate from the one before, so each step is made; but on a stand-in for the
        optimiser, with one parameter group where many are alike.

        Args:
            optim_wrapper (OptimWrapper): The optimiser, whose rates are changed in place.
            iterations (int): How many iterations are done.
            epoch_length (int): How many of them are an epoch, after which the schedulers of epochs step.

        Returns:
            list[_ParamScheduler]: The schedulers, to go on with.
        """
        kinds = [tuple(sorted(group.items())) for group in self.groups]
        distinct = list(dict.fromkeys(kinds))
        stand_in = SimpleNamespace(
            param_groups=[dict(kind) for kind in distinct], step=optim_wrapper.step, _global_step=0
        )
        for scheduler in self.schedulers:
            scheduler.optimizer = stand_in
            scheduler.base_values = [group[f'initial_{scheduler.param_name}'] for group in stand_in.param_groups]
        of_iterations = [scheduler for scheduler in self.schedulers if not scheduler.by_epoch]
        of_epochs = [scheduler for scheduler in self.schedulers if scheduler.by_epoch]
        for iteration in range(1, iterations + 1):
            for scheduler in of_iterations:
                scheduler.step()
            if iteration % epoch_length == 0:
                for scheduler in of_epochs:
                    scheduler.step()

        places = [distinct.index(kind) for kind in kinds]
        for group, place in zip(optim_wrapper.param_groups, places):
            group.update(stand_in.param_groups[place])
        for scheduler in self.schedulers:
            scheduler.optimizer = optim_wrapper
            scheduler.base_values = [scheduler.base_values[place] for place in places]
            scheduler._last_value = [scheduler._last_value[place] for place in places]
        return self.schedulers


@RUNNERS.register_module()
class ScheduleRunner(Runner):
    """mmengine's runner, with a schedule that follows the config: the length of the run, and its whole batch.

    A warm-up is shortened for a run that it does not leave room for, a resumed run has the schedule of the config and
    not that of the checkpoint, and accumulated gradients count in the scaling of the learning rate. Each says so in the
    log. Everything else, and runs with several optimisers, are mmengine's.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'ScheduleRunner':
        """Build a runner.

        Args:
            cfg (Config): A whole config.

        Returns:
            ScheduleRunner: The runner.

        Raises:
            ValueError: If one of a template's `settings` was changed where it has no effect, or a run of it
                is to go on from the checkpoint of another.
        """
        settings = cfg.get('settings', {})
        for name, value in settings.items():
            if cfg.get(name) != value:
                raise ValueError(
                    f'{name} was set to {cfg.get(name)!r} from outside of the file that has the settings, where all '
                    f'else was made with {value!r}; copy that file and set it there.'
                )
        checkpoint = cfg.get('load_from')
        # The template resumes by itself; other configs do with a checkpoint that was named on purpose.
        if (
            settings
            and cfg.get('resume')
            and checkpoint
            and Path(checkpoint).resolve().parent != Path(cfg['work_dir']).resolve()
        ):
            raise ValueError(
                f'load_from={checkpoint!r} with resume=True would go on with the epoch and optimiser of another run; '
                'to begin with its weights set resume=False, and to go on with that run give its work_dir.'
            )
        return super().from_cfg(cfg)

    @staticmethod
    def build_dataloader(*args, **kwargs) -> DataLoader:
        """Build a data loader as mmengine does, whose workers end when the main process is killed.

        Args:
            *args: Arguments of mmengine's ``Runner.build_dataloader``.
            **kwargs: Keyword arguments of it.

        Returns:
            DataLoader: The loader.
        """
        loader = Runner.build_dataloader(*args, **kwargs)
        loader.worker_init_fn = EndWithParent(loader.worker_init_fn)
        return loader

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate by the batch size that makes one step.

        Args:
            optim_wrapper (OptimWrapper): The optimiser, changed in place.
            auto_scale_lr (dict, optional): ``enable``, and ``base_batch_size`` for which the learning rate is meant.
                Defaults to None, for none.
        """
        super().scale_lr(optim_wrapper, auto_scale_lr)
        batches = getattr(optim_wrapper, '_accumulative_counts', 1)  # several optimisers have none
        if batches > 1 and auto_scale_lr is not None and auto_scale_lr.get('enable', False):
            self.logger.info(f'A step has the gradients of {batches} batches. Scaling the LR by {batches} too.')
            for group in optim_wrapper.optimizer.param_groups:
                group['lr'] *= batches

    def build_param_scheduler(
        self, scheduler: _ParamScheduler | dict | list
    ) -> list[_ParamScheduler] | dict[str, list[_ParamScheduler]]:
        """Build schedulers, with a warm-up that the run has room for.

        A linear warm-up which the run does not outlast is shortened to a fifth of the run, the largest share that the
        paper's recipes give it, and what follows begins where it ends. One of fewer than two steps is left out.

        Args:
            scheduler (_ParamScheduler | dict | list): Schedulers, or configs of them.

        Returns:
            list[_ParamScheduler] | dict[str, list[_ParamScheduler]]: The schedulers, by name for several optimisers.
        """
        configs = list(scheduler) if isinstance(scheduler, Sequence) else [scheduler]
        if isinstance(self.optim_wrapper, OptimWrapperDict) or not all(
            isinstance(config, dict) and 'type' in config for config in configs
        ):
            return super().build_param_scheduler(scheduler)

        epoch_length = len(self.train_dataloader)

        def unit(config: dict) -> int:
            """Iterations in what `begin` and `end` count."""
            return epoch_length if config.get('by_epoch', True) else 1

        def step(config: dict) -> int:
            """Iterations from one rate to the next."""
            return 1 if config.get('convert_to_iter_based', False) else unit(config)

        def outlasts_the_run(config: dict) -> bool:
            kind = config['type'] if isinstance(config['type'], type) else PARAM_SCHEDULERS.get(config['type'])
            rises = config.get('start_factor', 1 / 3) < config.get('end_factor', 1) and config.get('begin', 0) == 0
            is_warmup = isinstance(kind, type) and issubclass(kind, LinearParamScheduler) and rises
            return is_warmup and config.get('end', 0) * unit(config) >= self.max_iters

        ends = {}  # of warm-ups, in iterations: what the config says, and what the run has room for
        for warmup in filter(outlasts_the_run, configs):
            steps = self.max_iters // 5 // step(warmup)
            end = warmup['end'] * unit(warmup)
            ends[end] = steps * step(warmup) if steps > 1 else 0
            self.logger.info(
                f'The warm-up of {end} iterations takes {ends[end]}, because the run has {self.max_iters} in all.'
            )

        fitted = []
        for config in configs:
            key = 'end' if outlasts_the_run(config) else 'begin'
            place = ends.get(config.get(key, 0) * unit(config))
            if place is not None:
                if key == 'end' and place == 0:
                    continue
                # Epochs in fractions, where mmengine makes iterations of them.
                place = Fraction(ceil(Fraction(place, step(config))) * step(config), unit(config))
                config = dict(config, **{key: int(place) if place.denominator == 1 else place})
            fitted.append(config)
        return super().build_param_scheduler(fitted)

    def train(self) -> nn.Module:
        """Check the data, where the config has ``checks``, and train.

        Returns:
            nn.Module: The model.

        Raises:
            ValueError: If the data or what the config makes of it has faults.
        """
        self._check_data('train', 'val')
        return super().train()

    def test(self) -> dict:
        """Check the data, where the config has ``checks``, and test.

        Returns:
            dict: The metrics.

        Raises:
            ValueError: If the data or what the config makes of it has faults.
        """
        self._check_data('test')
        return super().test()

    def _check_data(self, *parts: str) -> None:
        """Run the checks of the config, in one process for all."""
        faults = []
        if is_main_process():
            for check in self.cfg.get('checks', []):
                faults += CHECKS.build(check)(self.cfg, parts, self.logger)
        broadcast_object_list(shared := [list(dict.fromkeys(faults))])
        (faults,) = shared
        if faults:
            lines = [f'  {number}. {fault}' for number, fault in enumerate(faults[:20], 1)]
            lines += [f'  ... and {len(faults) - 20} more.'] if len(faults) > 20 else []
            raise ValueError('\n'.join(['The data or the config cannot be used as they are:', *lines]))

    def load_or_resume(self) -> None:
        """Load weights or go on with a run; where its last checkpoint is damaged or gone, from the one before.

        Raises:
            ValueError: If there are checkpoints and none of them is whole.
        """
        if self._has_loaded or not self._resume or self._load_from is not None:
            return super().load_or_resume()
        paths = find_checkpoints(self.work_dir)
        for path in paths:
            try:
                self.resume(path)
            except (DamagedCheckpointError, FileNotFoundError) as error:
                self.logger.warning(f'{error} The run goes on from the checkpoint before.')
            else:
                self._has_loaded = True
                return
        if paths:
            raise ValueError(
                f'No checkpoint in {self.work_dir} is whole, so the run cannot go on; to begin anew, take another '
                '`work_dir` or empty this one.'
            )

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Save a checkpoint, whole or not at all; other arguments are mmengine's.

        Args:
            out_dir (str): The folder.
            filename (str): Name of the file.

        Raises:
            OSError: If it cannot be written.
        """
        if '://' in out_dir:  # where there is no renaming
            return super().save_checkpoint(out_dir, filename, *args, **kwargs)
        # Under another name until it is whole: a run that is killed meanwhile goes on from the one before, or anew.
        partial = Path(out_dir, f'{filename}.part')
        try:
            super().save_checkpoint(out_dir, partial.name, *args, **kwargs)
            if is_main_process():
                partial.replace(partial.with_suffix(''))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(
                f'The checkpoint {filename} could not be written to {out_dir} ({error.strerror or error}); make room '
                'or give another `work_dir`. Started again, the run goes on from the last checkpoint that is there.'
            ) from error

    def load_checkpoint(self, *args, **kwargs) -> dict:
        """Load a checkpoint's weights; arguments are mmengine's.

        Returns:
            dict: The checkpoint.
        """
        checkpoint = super().load_checkpoint(*args, **kwargs)
        self._has_former_names = has_former_names(checkpoint['state_dict'])
        self._saved_schedulers = checkpoint.get('param_schedulers', [])
        return checkpoint

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
    ) -> None:
        """Go on from a checkpoint, with the schedule of the config.

        If that is what the checkpoint's schedule was built from, the saved state is loaded as it is. Otherwise, as with
        another length of the run or another learning rate, the schedule is the one of a run that had the config from
        the start, at the place where this one goes on.

        Args:
            filename (str): Path or address of the checkpoint.
            resume_optimizer (bool): Whether to load the optimiser's state. Defaults to True.
            resume_param_scheduler (bool): Whether to go on with the schedule. Defaults to True.
            map_location (str | Callable): Where to load tensors. Defaults to ``'default'``: the device of the run.

        Raises:
            ValueError: If the checkpoint is of mmconvmae 0.1, or of another model or optimiser.
        """
        schedulers = self.param_schedulers or []
        if (
            not resume_optimizer
            or not resume_param_scheduler
            or isinstance(self.optim_wrapper, OptimWrapperDict)
            or not isinstance(self.optim_wrapper, OptimWrapper)
            # What follows a metric, or a momentum, has more of a state than rates.
            or any(hasattr(scheduler, 'need_val_args') or hasattr(scheduler, 'use_betas') for scheduler in schedulers)
        ):
            return super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)

        schedule = _Schedule(self.optim_wrapper, schedulers)
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except ValueError as error:
            if 'parameter group' not in str(error):
                raise
            raise ValueError(
                f'{filename} is of another model or optimiser than that of the config ({error}), so the run cannot go '
                'on from it; to begin with its weights, name it in `init_cfg` of the backbone or in `load_from`, with '
                '`resume=False` and a `work_dir` of its own.'
            ) from error
        if self._has_former_names:
            raise ValueError(
                f'{filename} is of mmconvmae 0.1, whose optimiser has its state in another order of parameters; begin '
                'from its weights in a new work directory, with `load_from` and `resume=False`.'
            )
        self.message_hub.update_info('last_ckpt', filename)

        unit = 'epochs' if isinstance(self.train_loop, EpochBasedTrainLoop) else 'iters'
        length, done = (self.max_epochs, self.epoch) if unit == 'epochs' else (self.max_iters, self.iter)
        if done >= length:
            self.logger.warning(
                f'{filename} has {done} {unit} and the run {length}, so that it is complete already; to go on, raise '
                f'`train_cfg.max_{unit}`.'
            )
            return
        changes = schedule.changes(self._saved_schedulers, [group['lr'] for group in self.optim_wrapper.param_groups])
        if not changes:
            return
        before = self.message_hub.get_info(f'max_{unit}', length)
        if before != length:
            changes.insert(0, f'length {before} -> {length} {unit}')
        if unit == 'epochs':
            # An epoch that was left in the middle begins anew, and epochs may have another number of iterations now.
            self.train_loop._iter = done * len(self.train_dataloader)
        # In a run that counts iterations the schedulers of epochs make no step before its end.
        epoch_length = len(self.train_dataloader) if unit == 'epochs' else length
        self.param_schedulers = schedule.bring_forward(self.optim_wrapper, self.iter, epoch_length) or None
        rate = max(self.optim_wrapper.get_lr()['lr'])
        self.logger.info(
            f'The schedule is that of the config and not that of the checkpoint ({"; ".join(changes)}); it goes on '
            f'from iteration {self.iter} with learning rate {rate:.4g}.'
        )
