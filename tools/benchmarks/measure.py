"""Time and memory of a function, on a CPU or a GPU."""

import operator
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def time_of(function: Callable[[], Any]) -> float:
    """Return the seconds that the function took, including a GPU's work."""
    _synchronize()
    start = time.perf_counter()
    function()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(function: Callable[[], Any]) -> int:
    """Return the peak memory of the function in bytes, beyond what was held before."""
    if torch.cuda.is_available():
        _synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        _synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    held = peak = 0
    # torch before 2.2 gives microseconds.
    start = 'start_ns' if hasattr(torch._C._autograd._KinetoEvent, 'start_ns') else 'start_us'
    events = profiler.profiler.kineto_results.events()
    for event in sorted(events, key=operator.methodcaller(start)):
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def seed(index: int) -> None:
    """Seed the random numbers of the transforms, so that every variant draws the same."""
    random.seed(index)
    np.random.seed(index)
    torch.manual_seed(index)
