import copy
from pathlib import Path
from uuid import uuid4

from mmengine.config import Config
from mmengine.runner import Runner


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config under a name that no other run of this process has.

    MMEngine has one logger, message hub and visualizer of a name. It names them after the config
    and the second, most visualizers after nothing at all, so that a run would write into the log
    and the folder of one that began in the same second, or before it.

    Args:
        cfg (Config): The whole config. It stays as it is.
    """
    cfg = copy.deepcopy(cfg)
    name = cfg.get('experiment_name') or Path(cfg.filename or 'run').stem
    cfg.experiment_name = f'{name}_{uuid4().hex[:8]}'
    if isinstance(cfg.get('visualizer'), dict):
        cfg.visualizer.name = cfg.experiment_name
    return Runner.from_cfg(cfg)
