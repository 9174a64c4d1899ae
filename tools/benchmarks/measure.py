"""What is measured, and how."""

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def time_of(function: Callable[[], Any]) -> float:
    """Return the seconds that the function took, a GPU's work included."""
    _synchronize()
    start = time.perf_counter()
    function()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(function: Callable[[], Any]) -> int:
    """Return the most bytes that the function held at once, beyond what it began with."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    held = peak = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted(events, key=_start):
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def _start(event) -> int:
    # In nanoseconds from torch 2.2 on, in microseconds before.
    return event.start_ns() if hasattr(event, 'start_ns') else event.start_us()


def seed(index: int) -> None:
    """Seed what the transforms draw from, so that every variant draws the same."""
    random.seed(index)
    np.random.seed(index)
    torch.manual_seed(index)
