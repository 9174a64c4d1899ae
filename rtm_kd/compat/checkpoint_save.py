"""Checkpoints that survive a kill or a full disk.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: MMEngine overwrites a file in place, so that a kill leaves half of it; and its
``CheckpointHook`` deletes the oldest checkpoint, with ``max_keep_ckpts=1`` the only one, before it
has written the newest. When a run resumes, the hook later deletes whatever the checkpoint calls
the best one: any file or folder, or the best checkpoint of the work dir this one was copied from.
Here: a file is written under a temporary name and renamed when it is complete and on the disk, and
``CheckpointHook`` deletes after it has written. Only the name of the best checkpoint is taken from
a checkpoint, and only if the run's own folder has it.
Can go: when MMEngine does the same.
"""

import copy
import functools
import os
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.dist import get_rank
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook

from .mmengine_0_10 import applies as applies


def _put(self: LocalBackend, obj: bytes, filepath: Union[str, Path]) -> None:
    target = os.path.abspath(filepath)
    # Every rank writes the metrics of a test into one file. Named by rank, not randomly, so that
    # the next process overwrites what a killed one left.
    rank = get_rank()
    part = target + (f'.{rank}' if rank else '') + '.part'
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        with open(part, 'wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        if os.path.exists(part):
            os.remove(part)
        raise OSError(
            error.errno,
            f"can't be written ({error.strerror}); the previous file is unchanged",
            target,
        ) from error


def _put_text(
    self: LocalBackend, obj: str, filepath: Union[str, Path], encoding: str = 'utf-8'
) -> None:
    _put(self, obj.encode(encoding), filepath)


def _deletes_last(save: Any) -> Any:
    @functools.wraps(save)
    def saves_first(self: CheckpointHook, *args, **kwargs) -> None:
        backend = self.file_backend
        deletions = []
        self.file_backend = copy.copy(backend)
        self.file_backend.remove = lambda path: deletions.append((backend.remove, path))
        self.file_backend.rmtree = lambda path: deletions.append((backend.rmtree, path))
        try:
            save(self, *args, **kwargs)
        finally:
            self.file_backend = backend
        for delete, path in deletions:
            delete(path)

    return saves_first


def _forgets_others(before_train: Any) -> Any:
    @functools.wraps(before_train)
    def begin(self: CheckpointHook, runner: Any) -> None:
        info = runner.message_hub.runtime_info
        kept = info.pop('keep_ckpt_ids', ())
        if isinstance(kept, (list, tuple)):
            info['keep_ckpt_ids'] = [step for step in kept if type(step) is int]
        before_train(self, runner)
        if self.save_best is None:
            return
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = _own_best(self, info, '')
        else:
            for indicator in self.key_indicators:
                self.best_ckpt_path_dict[indicator] = _own_best(self, info, f'_{indicator}')

    return begin


def _own_best(hook: CheckpointHook, info: dict, suffix: str) -> Optional[str]:
    noted = info.pop(f'best_ckpt{suffix}', None)
    name = os.path.basename(noted) if isinstance(noted, str) else ''
    path = hook.file_backend.join_path(hook.out_dir, name)
    if name.startswith('best_') and hook.file_backend.isfile(path):
        info[f'best_ckpt{suffix}'] = path
        return path
    # This folder has no best checkpoint yet.
    info.pop(f'best_score{suffix}', None)
    return None


def enable() -> None:
    LocalBackend.put = _put
    LocalBackend.put_text = _put_text
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(CheckpointHook, name, _deletes_last(getattr(CheckpointHook, name)))
    CheckpointHook.before_train = _forgets_others(CheckpointHook.before_train)
