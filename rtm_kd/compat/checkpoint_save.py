"""Checkpoints that a kill or a full disk can not spoil.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: MMEngine writes a file in its place, so that a kill while it writes leaves half of it;
and its ``CheckpointHook`` deletes the oldest checkpoint before it has written the newest,
with ``max_keep_ckpts=1`` the only one. It deletes the best checkpoint wherever the checkpoint
that a run resumes from says that it is: any file or folder, or that of the work dir that this one
was copied from.
Here: a file is written beside its place and renamed when it is whole and on the disk, and
``CheckpointHook`` deletes after it has written. Of the best checkpoint the name counts, in the
run's own folder; what is not there is not the best.
Can go: when MMEngine does the same.
"""

import functools
import os
from pathlib import Path
from typing import Any, Optional, Union

import mmengine
from mmengine.dist import get_rank
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.utils import digit_version

_WRITING = '.part'


def _put(self: LocalBackend, obj: bytes, filepath: Union[str, Path]) -> None:
    target = os.path.abspath(filepath)
    # Every rank writes the metrics of a test into one file. By rank, not by a random name,
    # so that what a killed process left is written over by the next.
    rank = get_rank()
    part = target + (f'.{rank}' if rank else '') + _WRITING
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
            f"can't be written ({error.strerror}); what stood there before stays as it was",
            target,
        ) from error


def _put_text(
    self: LocalBackend, obj: str, filepath: Union[str, Path], encoding: str = 'utf-8'
) -> None:
    _put(self, obj.encode(encoding), filepath)


class _DeletesLater:
    """A file backend that keeps its deletions in mind until :meth:`delete`."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.deletions = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.deletions.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.deletions.append((self.backend.rmtree, path))

    def delete(self) -> None:
        for function, path in self.deletions:
            function(path)


def _deletes_last(save: Any) -> Any:
    @functools.wraps(save)
    def saves_first(self: CheckpointHook, *args, **kwargs) -> None:
        backend = self.file_backend
        self.file_backend = later = _DeletesLater(backend)
        try:
            save(self, *args, **kwargs)
        finally:
            self.file_backend = backend
        later.delete()

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
    # The best of this folder is still to come.
    info.pop(f'best_score{suffix}', None)
    return None


def applies() -> bool:
    return digit_version(mmengine.__version__) < digit_version('0.11')


def enable() -> None:
    LocalBackend.put = _put
    LocalBackend.put_text = _put_text
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(CheckpointHook, name, _deletes_last(getattr(CheckpointHook, name)))
    CheckpointHook.before_train = _forgets_others(CheckpointHook.before_train)
