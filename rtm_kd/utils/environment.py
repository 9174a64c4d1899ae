"""Package versions and hardware, as reported beside measurements."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rtm_kd.version import __version__

_PACKAGES = (
    *('torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmyolo', 'mmrazor'),
    *('numpy', 'pycocotools'),
)


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and its dependencies."""
    found = dict(rtm_kd=__version__, python=platform.python_version())
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # one of the two mmcv
            continue
    return found


def machine() -> str:
    """Return one line on system, processor and GPU."""
    name = platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').split('\n')
        name = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        pass
    cores = f'{os.cpu_count()} CPU cores, {torch.get_num_threads()} of them for torch'
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'
    return ', '.join([platform.system(), name, cores, gpu])
