"""Fixes that let the OpenMMLab stack of 2023 run on today's PyTorch.

One module per fault. Each says which versions it is for and when it can go, and imports nothing
of :mod:`rtm_kd`. Its ``applies()`` tells whether the fault is there, its ``enable()`` fixes it.
"""

import functools
from importlib import import_module

_FIXES = tuple(
    import_module(f'.{name}', __name__)
    for name in (
        'mmcv_ext',
        'mmcv_version',
        'mmrazor_quantization',
        'checkpoint_load',
        'checkpoint_save',
        'cpu_distributed',
        'collate_scope',
        'config_interrupts',
        'package_configs',
        'config_text',
        'coco_ground_truth',
        'log_file',
        'known_warnings',
    )
)


@functools.cache
def enable() -> None:
    """Enable every fix whose fault is there. Calling it again does nothing."""
    for fix in _FIXES:
        if fix.applies():
            fix.enable()
