"""What distilling costs; see docs/performance.md and tools/benchmark.py."""

from .exported import exported
from .fast_path_error import fast_path_error
from .own_share import own_share
from .start_up import start_up
from .steps import PARTS, benchmark
from .variants import VARIANTS, mmrazor_cfg

__all__ = [
    'PARTS',
    'VARIANTS',
    'benchmark',
    'exported',
    'fast_path_error',
    'mmrazor_cfg',
    'own_share',
    'start_up',
]
