"""What makes the OpenMMLab stack of 2023 run on today's PyTorch.

One module per fault. Each says which versions it is for and when it can go, and imports nothing
of :mod:`rtm_kd`. Its ``applies()`` says whether the fault is there, its ``enable()`` mends it.
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
    pkg_resources_warning,
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
    pkg_resources_warning,
)


_enabled = False


def enable() -> None:
    """Switch on every fix whose fault is there. Calling it again does nothing."""
    global _enabled
    if _enabled:
        return
    _enabled = True
    for fix in _FIXES:
        if fix.applies():
            fix.enable()
