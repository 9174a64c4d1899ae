from pathlib import Path
from typing import Any, Optional

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner
from torch import Tensor

from rtm_kd.models.algorithms.detector import resolve_model_cfg
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.checkpoint import check_state_dict, read_checkpoint, student_state_dict
from rtm_kd.utils.errors import name_what_can_not_be_built
from rtm_kd.utils.files import check_can_write

from .checks import check_data_files, check_datasets, check_values
from .runner import build_runner
from .train import no_work_dir_on_usage_error, run_errors_in_log, set_work_dir


def test(
    config: str,
    checkpoint: str,
    work_dir: Optional[str] = None,
    out: Optional[str] = None,
    json_prefix: Optional[str] = None,
    show: bool = False,
    show_dir: Optional[str] = None,
    wait_time: float = 2,
    tta: bool = False,
    cfg_options: Optional[dict[str, Any]] = None,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluate a detector, or the student of a distillation.

    With a distillation's config the student is built alone, and either its own checkpoint
    or the distillation's will do. The teacher is not needed.

    Args:
        config (str): Path of the config.
        checkpoint (str): Path or URL of the weights. Every one of them must fit.
        work_dir (str, optional): As in :func:`rtm_kd.apis.train`.
        out (str, optional): File for the raw predictions, ``.pkl``.
        json_prefix (str, optional): Write predictions for a test server instead of
            evaluating them.
        show (bool): Show each image with its detections.
        show_dir (str, optional): Save them under ``work_dir/<time>/<show_dir>``.
        wait_time (float): Seconds that each is shown.
        tta (bool): Test-time augmentation, as the config describes it.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Returns:
        dict[str, float]: The metrics.

    Raises:
        ValueError: For whatever the user can put right.
    """
    cfg = load_config(config, cfg_options)
    check_values(cfg)
    set_work_dir(cfg, config, work_dir)
    cfg.launcher = launcher
    if out is not None and not out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out must end in .pkl or .pickle, got {out}')
    if out is not None:
        check_can_write(Path(out), '--out')
    check_data_files(cfg, 'test')
    state_dict = student_state_dict(read_checkpoint(checkpoint)['state_dict'])
    use_student(cfg)
    if show or show_dir:
        visualizer = ConfigDict(show=show, show_dir=show_dir, wait_time=wait_time)
        cfg = trigger_visualization_hook(cfg, visualizer)
    if json_prefix is not None:
        cfg.test_evaluator.update(format_only=True, outfile_prefix=json_prefix)
    if tta:
        _use_tta(cfg)
    runner = build_test_runner(cfg, state_dict, checkpoint)
    if out is not None:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
    with run_errors_in_log(runner):
        return runner.test()


def build_test_runner(cfg: Config, state_dict: dict[str, Tensor], checkpoint: str) -> Runner:
    """Return a runner that is ready to test, with the weights in its model.

    Args:
        cfg (Config): The whole config, of a detector.
        state_dict (dict[str, Tensor]): The weights. Every one of them must fit.
        checkpoint (str): Where they came from, for messages.

    Raises:
        ValueError: If the model can't be built, or the data or the weights don't fit it.
    """
    with no_work_dir_on_usage_error(cfg.work_dir), name_what_can_not_be_built():
        runner = build_runner(cfg)
        check_datasets(runner, 'test')
        model = runner.model.module if runner.distributed else runner.model
        model = getattr(model, 'module', model)
        check_state_dict(state_dict, model.state_dict(), checkpoint, 'the model of the config')
        model.load_state_dict(state_dict)
    return runner


def use_student(cfg: Config) -> None:
    """Turn a distillation's config into its student's; leave any other as it is."""
    if 'architecture' in cfg.model:
        cfg.model = resolve_model_cfg(cfg.model.architecture, 'architecture')


def _use_tta(cfg: Config) -> None:
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise UsageError('--tta needs tta_model and tta_pipeline in the config')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'batch_shapes_cfg' in dataset:
        # It fixes the size of the image, which the augmentation changes.
        dataset.batch_shapes_cfg = None
    dataset.pipeline = cfg.tta_pipeline
