"""MMEngine's checkpoints, read without running anything in them.

For: mmengine <= 0.10.7, with any torch.
Fault: MMEngine calls ``torch.load`` plainly. Before torch 2.6 that runs any code in a file; since
then it refuses every training checkpoint, because each holds MMEngine's message hub
(``HistoryBuffer`` objects with numpy arrays and numpy scalars).
Here: MMEngine's loaders get :mod:`rtm_kd.compat.unpickler`. A download, also one that is in the
cache already, is checked against the hash in its name; one without a hash is cached by its URL.
``RTM_KD_TRUST=FILE`` names files, separated like a PATH, that are loaded without any of this,
with a warning in the log.
Can go: when MMEngine reads its checkpoints like this itself.
"""

import contextlib
import hashlib
import logging
import os
import pickle
import re
import tarfile
from typing import Any, Optional
from urllib.parse import urlparse

import mmengine.runner.checkpoint as mmengine_checkpoint
import torch
from mmengine.logging import print_log

from .unpickler import REPEATED, PickleModule, UnsafeCheckpointError, check_nesting

TRUST = 'RTM_KD_TRUST'
_MOST_RECORDS = 100_000
_PAGE_BEGINS = 100  # bytes
# How torch.save began a file before torch 1.6.
_MAGIC = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)
# As OpenMMLab and torchvision publish them: <name>-<first digits of the SHA-256>.pth
_PUBLISHED = re.compile(r'-([0-9a-f]{8,64})\.pth$')


def load(file: Any, map_location: Any = None, weights_only: Any = None) -> Any:
    """Read a checkpoint as ``torch.load`` does, without running anything in it.

    ``weights_only``, which later releases of MMEngine pass, is ignored.

    Raises:
        UnsafeCheckpointError: If the file asks for anything but tensors and plain data; the
            message names the file and what it asked for.
        UnpicklingError: If it is damaged.
    """
    is_path = isinstance(file, (str, os.PathLike))
    name = os.fspath(file) if is_path else 'the checkpoint'
    if is_path and _is_trusted(name):
        print_log(
            f'{name} is loaded without checks because {TRUST} names it: it may run any code',
            logger='current',
            level=logging.WARNING,
        )
        return torch.load(file, map_location=map_location, weights_only=False)
    try:
        with open(file, 'rb') if is_path else contextlib.nullcontext(file) as opened:
            content = _read(opened, map_location)
    except UnsafeCheckpointError as error:
        remedy = f'; if you trust who made it: {TRUST}={name}' if is_path else ''
        raise UnsafeCheckpointError(
            f'{name} asks for {error}, which has no place in a checkpoint; refused, and '
            f'nothing of it was run{remedy}'
        ) from None
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # what torch raises on a damaged file differs by version
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        raise pickle.UnpicklingError(f"{name} can't be read as a checkpoint ({reason})") from error
    meta = content.get('meta') if isinstance(content, dict) else None
    if isinstance(meta, dict):
        # Runner.resume would execute it. MMEngine itself writes "cfg", which it does not execute.
        meta.pop('config', None)
    return content


def _is_trusted(path: str) -> bool:
    trusted = filter(None, os.environ.get(TRUST, '').split(os.pathsep))
    return os.path.realpath(path) in map(os.path.realpath, trusted)


def _read(file: Any, map_location: Any) -> Any:
    start = file.tell()
    head = file.read(tarfile.BLOCKSIZE)
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    pickle_module = PickleModule(_records(file, head, size), size)
    file.seek(start)
    content = torch.load(
        file, map_location=map_location, pickle_module=pickle_module, weights_only=False
    )
    check_nesting(content, REPEATED + size)
    return content


def _records(file: Any, head: bytes, size: int) -> Optional[dict[str, int]]:
    """Return the sizes of a zip archive's records, None for a file of torch before 1.6.

    Raises:
        UnsafeCheckpointError: For TorchScript and tar, which torch reads without an unpickler.
        UnpicklingError: If an archive holds more than its file, or the file is of no format.
    """
    if head.startswith(b'PK\x03\x04'):
        # The reader that torch.load itself uses.
        reader = torch._C.PyTorchFileReader(file)
        names = reader.get_all_records()
        if 'constants.pkl' in names:
            raise UnsafeCheckpointError('a TorchScript program')
        size_of = getattr(reader, 'get_record_size', lambda name: len(reader.get_record(name)))
        # torch does not compress: these are compressed, or the same bytes many times.
        sizes = {name: size_of(name) for name in names[: _MOST_RECORDS + 1]}
        if len(names) > _MOST_RECORDS or size < sum(sizes.values()):
            raise pickle.UnpicklingError(f'its {len(names)} records take more than its size')
        return sizes
    with contextlib.suppress(tarfile.TarError):
        # Only the first header: later ones may claim any size.
        tarfile.TarInfo.frombuf(head, 'utf-8', 'surrogateescape')
        raise UnsafeCheckpointError('a tar archive of torch before 0.4')
    if not head.startswith(_MAGIC):
        raise pickle.UnpicklingError('it does not begin as one')
    return None


def file_digest(path: str, digest: Any) -> str:
    """Feed a file, which may be larger than memory, to a hash of hashlib; return it in hex."""
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_hash(path: str) -> None:
    """Raise UnpicklingError if a file's name has a hash and the file has another one."""
    match = _PUBLISHED.search(path)
    if match is None:
        return
    digest = file_digest(path, hashlib.sha256())
    if not digest.startswith(match[1]):
        raise pickle.UnpicklingError(
            f'{path} is damaged: its SHA-256 begins with {digest[:8]}, its name says {match[1]}; '
            'delete it and download it again'
        )


def load_url(
    url: str,
    model_dir: Optional[str] = None,
    map_location: Any = None,
    progress: bool = True,
    **kwargs,
) -> Any:
    """Download a checkpoint into torch's cache unless it is there, check it and read it.

    Raises:
        UnpicklingError: Naming the file in the cache, if it can't be read.
    """
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    name = os.path.basename(urlparse(url).path)
    if _PUBLISHED.search(name) is None:
        # Other servers have a best.pth, too.
        folder = os.path.join(folder, hashlib.sha256(url.encode()).hexdigest()[:16])
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        torch.hub.download_url_to_file(url, path, progress=progress)
    check_hash(path)
    try:
        return load(path, map_location)
    except UnsafeCheckpointError:
        raise
    except pickle.UnpicklingError as error:
        reason = str(error)
        with open(path, 'rb') as file:
            if file.read(_PAGE_BEGINS).lstrip().startswith(b'<'):
                reason = f'{path} is a web page, such as a login page, and not a checkpoint'
        raise pickle.UnpicklingError(
            f'{reason}; it was downloaded from {url}: delete the file and download it again'
        ) from None


class _Torch:
    """torch, as MMEngine's module of checkpoint loaders sees it."""

    load = staticmethod(load)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def applies() -> bool:
    # No release of MMEngine reads untrusted files safely.
    return True


def enable() -> None:
    mmengine_checkpoint.torch = _Torch()
    mmengine_checkpoint.load_url = load_url
