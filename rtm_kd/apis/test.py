"""Evaluation of a detector, or of a distillation's student."""

from pathlib import Path
from typing import Any, Optional

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmengine.config import ConfigDict
from mmengine.evaluator import DumpResults

from rtm_kd.checks.config import check_data_files, check_values
from rtm_kd.engine.runs import build_test_runner, log_run_errors, set_work_dir
from rtm_kd.models.distillation import use_student
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.checkpoint import read_checkpoint, student_state_dict
from rtm_kd.utils.config import bare_type, evaluators_of, get_value, innermost_dataset
from rtm_kd.utils.files import check_can_write


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
    """Evaluate a detector, or the student of a distillation, and return the metrics.

    The arguments are the options of ``tools/test.py``, whose ``--help`` describes them. Of a
    distillation only the student is built; all weights of the checkpoint must fit.

    Raises:
        ValueError: For anything that the user can fix.
    """
    cfg = load_config(config, cfg_options)
    check_values(cfg)
    set_work_dir(cfg, config, work_dir)
    cfg.launcher = launcher
    if out is not None:
        if not out.endswith(('.pkl', '.pickle')):
            raise UsageError(f'--out must end in .pkl or .pickle, got {out}')
        check_can_write(Path(out), '--out')
    if (show or show_dir) and not get_value(cfg, 'default_hooks.visualization'):
        raise UsageError(
            '--show and --show-dir need a default_hooks.visualization in the config, such as '
            'dict(type="mmdet.DetVisualizationHook")'
        )
    if json_prefix is not None:
        evaluators = evaluators_of(cfg, 'test')
        writing = [e for e in evaluators if bare_type(e).startswith(('Coco', 'LVIS'))]
        if not writing:
            names = [e.get('type') for e in evaluators]
            raise UsageError(f'--json-prefix needs a CocoMetric, and the config has {names}')
        for evaluator in writing:
            evaluator.update(format_only=True, outfile_prefix=json_prefix)
    check_data_files(cfg, 'test')
    state_dict = student_state_dict(read_checkpoint(checkpoint)['state_dict'])
    use_student(cfg)
    if show or show_dir:
        visualizer = ConfigDict(show=show, show_dir=show_dir, wait_time=wait_time)
        cfg = trigger_visualization_hook(cfg, visualizer)
    if tta:
        if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
            raise UsageError('--tta needs tta_model and tta_pipeline in the config')
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        dataset = innermost_dataset(cfg.test_dataloader.dataset)
        dataset.pipeline = cfg.tta_pipeline
        if 'batch_shapes_cfg' in dataset:
            # It fixes the size of the images, which the augmentation changes.
            dataset.batch_shapes_cfg = None
    runner = build_test_runner(cfg, state_dict, checkpoint)
    if out is not None:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
    with log_run_errors(runner):
        return runner.test()
