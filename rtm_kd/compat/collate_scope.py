"""Dataloaders of configs whose base is ``package::config``.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: MMEngine writes ``_scope_`` into every dict of such a base. Registries remove it
again; ``Runner.build_dataloader`` builds ``collate_fn`` without a registry, and calls
``yolov5_collate(..., _scope_='mmyolo')``: a TypeError on the first batch.
Here: ``_scope_`` is removed from ``collate_fn`` before the dataloader is built.
Can go: when MMEngine does the same.
"""

import copy
import functools

from mmengine.runner import Runner

from .mmengine_0_10 import applies as applies


def enable() -> None:
    original = Runner.build_dataloader

    @functools.wraps(original)
    def build_dataloader(dataloader, *args, **kwargs):
        collate = dataloader.get('collate_fn') if isinstance(dataloader, dict) else None
        if isinstance(collate, dict) and '_scope_' in collate:
            dataloader = copy.copy(dataloader)
            dataloader['collate_fn'] = copy.copy(collate)
            dataloader['collate_fn'].pop('_scope_')
        return original(dataloader, *args, **kwargs)

    Runner.build_dataloader = staticmethod(build_dataloader)
