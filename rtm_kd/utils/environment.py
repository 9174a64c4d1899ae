"""Package versions and hardware, as reported beside measurements."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from rtm_kd.version import __version__

_PACKAGES = (
    *('torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmyolo', 'mmrazor'),
    *('numpy', 'pycocotools'),
)
_FORKS = 'onedl-mm'  # what their names begin with


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and its dependencies, forks included."""
    found = dict(rtm_kd=__version__, python=platform.python_version())
    installed = {
        str(each.metadata['Name']): each.version for each in importlib.metadata.distributions()
    }
    names = [*_PACKAGES, *sorted(name for name in installed if name.startswith(_FORKS))]
    return found | {name: installed[name] for name in names if name in installed}


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
