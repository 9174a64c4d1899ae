"""Whether a run can go on from a checkpoint, seen before its data are built."""

import logging
from typing import Any, Optional

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.nn.parallel import DataParallel, DistributedDataParallel

from rtm_kd.utils import UsageError
from rtm_kd.utils.checkpoint import check_state_dict, class_names
from rtm_kd.utils.config import get_value, innermost_dataset

_BEGIN = 'begin from its weights, load_from={0}, or resume from another, such as epoch_N.pth'
# Of a training's checkpoint, besides the weights, what MMEngine takes for granted.
_PARTS = ('optimizer', 'message_hub', 'meta')
_COUNTS = ('epoch', 'iter')


def check_resumable(content: dict[str, Any], checkpoint: str, cfg: Config) -> None:
    """Raise unless a checkpoint holds the state of a training on the classes of a config.

    Says so where that training is as long as the config's already.

    Args:
        content (dict): What :func:`rtm_kd.utils.checkpoint.read_checkpoint` returns.
        checkpoint (str): Its path or URL, for the message.
        cfg (Config): The whole config.

    Raises:
        ValueError: Naming what is missing, or both lists of classes.
    """
    parts = [*_PARTS, *(['param_schedulers'] if cfg.get('param_scheduler') else [])]
    missing = [part for part in parts if part not in content]
    if missing:
        raise UsageError(
            f"{checkpoint} can't be resumed: it has no {' and no '.join(missing)}, as a "
            f"training's checkpoint has; {_BEGIN.format(checkpoint)}"
        )
    meta = content['meta']
    odd = [
        f'meta.{name}={meta.get(name)!r:.40}'
        for name, least in (*((name, 0) for name in _COUNTS), ('samples_of_epoch', 0))
        if not _is_count(meta.get(name, None if name in _COUNTS else least))
    ]
    if odd:
        raise UsageError(
            f"{checkpoint} can't be resumed: it has {' and '.join(odd)}, which has to be an "
            f'integer from 0 up; {_BEGIN.format(checkpoint)}'
        )
    learnt, classes = class_names(meta.get('dataset_meta')), _config_classes(cfg)
    if learnt is not None and classes is not None and learnt != classes:
        place = next(
            (i for i, pair in enumerate(zip(learnt, classes)) if pair[0] != pair[1]),
            min(len(learnt), len(classes)),
        )
        raise UsageError(
            f"{checkpoint} can't be resumed: it is of {len(learnt)} classes and the config of "
            f'{len(classes)}, which differ first at label {place} ({_at(learnt, place)}, '
            f'{_at(classes, place)}); name them in the order of the checkpoint'
        )
    _say_if_done(meta, checkpoint, cfg)


def check_fits(content: dict[str, Any], checkpoint: str, runner: Runner) -> None:
    """Raise unless a run's model and optimizer are those that a checkpoint is of.

    The runner's optimizer is built, which it would be later.

    Args:
        content (dict): As :func:`check_resumable` has it, which comes first.
        checkpoint (str): Its path or URL, for the message.
        runner (Runner): The run that is to go on.

    Raises:
        ValueError: Naming the first weights that don't fit, or what of the optimizer differs.
    """
    model = runner.model
    whole = (DataParallel, DistributedDataParallel)
    if not is_model_wrapper(model) or isinstance(model, whole):
        model = getattr(model, 'module', model)
        # MMRazor's checkpoints have the teacher as well.
        own = {k: v for k, v in content['state_dict'].items() if not k.startswith('teacher.')}
        check_state_dict(own, model.state_dict(), checkpoint, 'the run that is to be resumed')
        _check_optimizer(content['optimizer'], checkpoint, runner)


def _check_optimizer(saved: Any, checkpoint: str, runner: Runner) -> None:
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is None:
        return  # several, by name
    kind = type(optimizer).__name__
    groups = saved.get('param_groups') if isinstance(saved, dict) else None
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and isinstance(group.get('params'), list) for group in groups
    ):
        fault = f'its optimizer is not the state of one, a {kind}'
    elif len(groups) != len(optimizer.param_groups):
        fault = (
            f'its optimizer has {len(groups)} groups of parameters, and that of the config '
            f'{len(optimizer.param_groups)}'
        )
    elif [len(g['params']) for g in groups] != [len(g['params']) for g in optimizer.param_groups]:
        fault = 'its optimizer has other parameters than that of the config'
    else:
        # A newer torch has more options of the same optimizer, but it drops none.
        theirs, ours = set(groups[0]), set(optimizer.defaults)
        if ours <= theirs or theirs - {'params', 'initial_lr', 'param_names'} <= ours:
            return
        fault = (
            f'its optimizer has {", ".join(sorted(map(str, theirs - ours - {"params"})))}, and '
            f'that of the config, {kind}, has {", ".join(sorted(ours - theirs))}'
        )
    raise UsageError(
        f"{checkpoint} can't be resumed: {fault}; set optim_wrapper as it was, or begin from the "
        f'weights, load_from={checkpoint}'
    )


def _say_if_done(meta: dict, checkpoint: str, cfg: Config) -> None:
    loop = cfg.get('train_cfg') or {}
    for unit in ('epoch', 'iter'):
        most = loop.get(f'max_{unit}s')
        if most is not None and meta[unit] >= most:
            print_log(
                f'{checkpoint} is at {unit} {meta[unit]} of max_{unit}s={most}: there is nothing '
                f'to train; set a larger max_{unit}s to go on',
                'current',
                logging.WARNING,
            )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _config_classes(cfg: Config) -> Optional[list[str]]:
    dataset = innermost_dataset(get_value(cfg, 'train_dataloader.dataset'))
    return class_names(get_value(dataset, 'metainfo'))


def _at(classes: list[str], place: int) -> str:
    return f'"{classes[place][:40]}"' if place < len(classes) else 'none'
