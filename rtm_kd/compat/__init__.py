"""What makes the OpenMMLab stack of 2023 run on today's PyTorch.

One module per fault. Each says which versions it is for and when it can go,
imports nothing of :mod:`rtm_kd`, and changes nothing where its fault is absent.
"""

from . import (
    checkpoint_load,
    checkpoint_save,
    coco_ground_truth,
    collate_scope,
    config_interrupts,
    config_text,
    cpu_distributed,
    log_file,
    mmcv_ext,
    mmcv_version,
    mmrazor_quantization,
    package_configs,
)

_FIXES = (
    mmcv_ext,
    mmcv_version,
    mmrazor_quantization,
    checkpoint_load,
    checkpoint_save,
    cpu_distributed,
    collate_scope,
    config_interrupts,
    package_configs,
    config_text,
    coco_ground_truth,
    log_file,
)


def enable() -> None:
    """Switch every fix on. Calling it again does nothing."""
    for fix in _FIXES:
        fix.enable()
