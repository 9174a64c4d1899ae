"""Checks of a checkpoint that a run is to be resumed from."""

from itertools import zip_longest
from typing import Any, Optional

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.nn.parallel import DataParallel, DistributedDataParallel

from rtm_kd.utils import UsageError
from rtm_kd.utils.checkpoint import check_state_dict, class_names
from rtm_kd.utils.config import get_value, innermost_dataset

from .annotations import warn


def check_resumable(content: dict[str, Any], checkpoint: str, cfg: Config) -> None:
    """Raise unless a checkpoint holds the state of a training on the classes of a config.

    Warns where that training is as long as the config's already.

    Args:
        content (dict): What :func:`rtm_kd.utils.checkpoint.read_checkpoint` returns.
        checkpoint (str): Its path or URL, for the message.
        cfg (Config): Of the run that is to be resumed.

    Raises:
        ValueError: With what is missing, or both lists of classes.
    """
    begin = (
        f'start from its weights, load_from={checkpoint}, or resume from another, such as '
        'epoch_N.pth'
    )
    # What MMEngine relies on, besides the weights.
    parts = ['optimizer', 'message_hub', 'meta']
    parts += ['param_schedulers'] if cfg.get('param_scheduler') else []
    missing = [part for part in parts if part not in content]
    if missing:
        raise UsageError(
            f"{checkpoint} can't be resumed: it has no {' and no '.join(missing)}, as a "
            f"training's checkpoint has; {begin}"
        )
    meta = content['meta']
    counts = [(name, meta.get(name)) for name in ('epoch', 'iter')]
    counts.append(('samples_of_epoch', meta.get('samples_of_epoch', 0)))
    odd = [f'meta.{n}={count!r:.40}' for n, count in counts if type(count) is not int or count < 0]
    if odd:
        raise UsageError(
            f"{checkpoint} can't be resumed: it has {' and '.join(odd)}, which has to be an "
            f'integer from 0 up; {begin}'
        )
    dataset = innermost_dataset(get_value(cfg, 'train_dataloader.dataset'))
    learnt = class_names(meta.get('dataset_meta'))
    classes = class_names(get_value(dataset, 'metainfo'))
    if learnt is not None and classes is not None and learnt != classes:
        pairs = enumerate(zip_longest(learnt, classes))
        place, pair = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
        names = ', '.join('none' if name is None else f'"{name[:40]}"' for name in pair)
        raise UsageError(
            f"{checkpoint} can't be resumed: it is of {len(learnt)} classes and the config of "
            f'{len(classes)}, which differ first at label {place} ({names}); name them in the '
            'order of the checkpoint'
        )
    for unit in ('epoch', 'iter'):
        most = (cfg.get('train_cfg') or {}).get(f'max_{unit}s')
        if most is not None and meta[unit] >= most:
            warn(
                f'{checkpoint} is at {unit} {meta[unit]} of max_{unit}s={most}: there is nothing '
                f'to train; set a larger max_{unit}s to continue'
            )


def check_fits(content: dict[str, Any], checkpoint: str, runner: Runner) -> None:
    """Raise unless a checkpoint fits the model and the optimizer of a run.

    It is one that :func:`check_resumable` has accepted. The runner's optimizer is built, which
    would happen later anyway.

    Raises:
        ValueError: With the first weights that don't fit, or the difference of the optimizers.
    """
    model = runner.model
    whole = (DataParallel, DistributedDataParallel)
    if is_model_wrapper(model) and not isinstance(model, whole):
        return
    model = getattr(model, 'module', model)
    # MMRazor's checkpoints have the teacher as well.
    own = {k: v for k, v in content['state_dict'].items() if not k.startswith('teacher.')}
    check_state_dict(own, model.state_dict(), checkpoint, 'the run that is to be resumed')
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    # There may be several, by name.
    fault = None if optimizer is None else _optimizer_fault(content['optimizer'], optimizer)
    if fault:
        raise UsageError(
            f"{checkpoint} can't be resumed: its optimizer {fault}; set optim_wrapper as it was, "
            f'or start from the weights, load_from={checkpoint}'
        )


def _optimizer_fault(saved: Any, optimizer: Any) -> Optional[str]:
    """Return how a saved state differs from what an optimizer could load, None if it does not."""
    kind, built = type(optimizer).__name__, optimizer.param_groups
    groups = saved.get('param_groups') if isinstance(saved, dict) else None
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and isinstance(group.get('params'), list) for group in groups
    ):
        return f'is not the state of {kind}'
    if len(groups) != len(built):
        return f'has {len(groups)} groups of parameters, and that of the config {len(built)}'
    if [len(group['params']) for group in groups] != [len(group['params']) for group in built]:
        return 'has other parameters than that of the config'
    # A newer torch has more options of the same optimizer, but it drops none.
    theirs, ours = set(groups[0]), set(optimizer.defaults)
    if ours <= theirs or theirs - {'params', 'initial_lr', 'param_names'} <= ours:
        return None
    return (
        f'has {", ".join(sorted(map(str, theirs - ours - {"params"})))}, and that of the config, '
        f'{kind}, has {", ".join(sorted(ours - theirs))}'
    )
