"""MMEngine's checkpoints, read without running anything that a file brings.

For: mmengine <= 0.10.7, with any torch.
Fault: MMEngine calls ``torch.load`` plainly. Before torch 2.6 that runs whatever a file
says; since then it refuses every training checkpoint, for each carries its message hub
(``HistoryBuffer`` objects with numpy arrays and numpy scalars).
Here: what MMEngine's loaders call is an unpickler that knows the few types of a checkpoint,
calls nothing else and writes into nothing else. A download, and a downloaded file met again,
is checked against the hash in its name. ``RTM_KD_TRUST=FILE`` names files, separated like a
PATH, that are loaded without any of this, with a warning in the log.
Can go: when MMEngine reads its checkpoints like this by itself.
"""

import hashlib
import logging
import math
import os
import pickle
import re
import reprlib
import tarfile
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any, Optional
from urllib.parse import urlparse

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log

try:
    from numpy._core.multiarray import scalar
except ImportError:
    from numpy.core.multiarray import scalar

TRUST = 'RTM_KD_TRUST'
_STATISTICS = ('min', 'max', 'current', 'mean')
# As OpenMMLab and torchvision publish them: <name>-<first digits of the SHA-256>.pth
_PUBLISHED = re.compile(r'-([0-9a-f]{8,64})\.pth$')


class UnsafeCheckpointError(pickle.UnpicklingError):
    """A file that asks for what has no place in a checkpoint."""


def _in_short(value: Any) -> str:
    # One line, whatever a file has put together.
    if isinstance(value, (str, int, tuple)):
        return reprlib.repr(value).split('\n')[0]
    return getattr(value, '__qualname__', f'an object of {type(value).__name__}')


def _statistic(owner: Any, name: Any) -> Any:
    # A pickled HistoryBuffer finds its own statistics with getattr.
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnsafeCheckpointError(f'builtins.getattr of {_in_short(name)}')
    return getattr(owner, name)


def _encode(text: str, encoding: str) -> bytes:
    # Bytes, as pickle's protocol 2 spells them.
    if encoding not in ('latin1', 'latin-1'):
        raise UnsafeCheckpointError(f'_codecs.encode with the codec {_in_short(encoding)}')
    return text.encode('latin-1')


def _rebuild_tensor(
    storage, offset, size, stride, requires_grad=False, backward_hooks=(), metadata=None
) -> torch.Tensor:
    if backward_hooks:
        raise UnsafeCheckpointError('a tensor with backward hooks')
    extent = sum((n - 1) * step for n, step in zip(size, stride)) + 1 if all(size) else 0
    if min(offset, *size, *stride, 0) < 0 or offset + extent > storage._size():  # size() warns
        # torch would make the storage larger and show whatever memory it gets.
        raise pickle.UnpicklingError(f'a tensor of size {tuple(size)} exceeds its storage')
    return torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, requires_grad, OrderedDict()
    )


def _rebuild_parameter(data, requires_grad, backward_hooks) -> torch.nn.Parameter:
    if backward_hooks:
        raise UnsafeCheckpointError('a parameter with backward hooks')
    return torch.nn.Parameter(data, requires_grad)


def _reconstructor(cls, base, state) -> Any:
    # How a HistoryBuffer begins that was pickled with protocol 0 or 1.
    if cls is not HistoryBuffer or base is not object or state is not None:
        raise UnsafeCheckpointError(f'copyreg._reconstructor of {_in_short(cls)}')
    return HistoryBuffer.__new__(HistoryBuffer)


def _reconstruct(cls, shape, dtype) -> np.ndarray:
    # An array as it begins; its shape and content come with its state.
    if cls is not np.ndarray or shape != (0,):
        raise UnsafeCheckpointError(f'an array of {_in_short(cls)} and shape {_in_short(shape)}')
    return np.empty(0, np.uint8)


def _dtype(name, align=False, copy=False) -> np.dtype:
    # Numbers, text and objects. A record's fields may lie outside of its bytes.
    dtype = np.dtype(name, align, copy) if isinstance(name, str) else None
    if dtype is None or dtype.fields is not None or dtype.kind not in 'biufcSUO':
        raise UnsafeCheckpointError(f'the dtype {_in_short(name)}')
    return dtype


def _set_byte_order(dtype: np.dtype, state: Any) -> None:
    # All else that numpy lets a file set is the dtype's own already, or it lies: objects that
    # are said to be none would be made of whatever addresses the file holds.
    own = dtype.__reduce__()[2]
    if not isinstance(state, tuple) or (state[:1], state[2:]) != (own[:1], own[2:]):
        raise UnsafeCheckpointError(f'flags set on the dtype {dtype}')
    dtype.__setstate__(state)


def _set_array(array: np.ndarray, state: Any) -> None:
    # numpy takes a file's word for how many objects a list has.
    try:
        _, shape, dtype, _, data = state
        count = math.prod(shape)
        expected = (list, count) if dtype.hasobject else (bytes, count * dtype.itemsize)
        fits = min(shape, default=0) >= 0 and (type(data), len(data)) == expected
    except (AttributeError, TypeError, ValueError):
        fits = False
    if not fits:
        raise pickle.UnpicklingError('an array whose data are not of its size')
    array.__setstate__(state)


def _functions() -> dict[tuple[str, str], Any]:
    known = {
        ('collections', 'OrderedDict'): OrderedDict,
        ('numpy', 'dtype'): _dtype,
        ('torch', 'Size'): torch.Size,
        ('torch', 'device'): torch.device,
        ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
        ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
        ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
        ('_codecs', 'encode'): _encode,
    }
    for builtins in ('builtins', '__builtin__'):  # Python 3's name and Python 2's
        known[builtins, 'getattr'] = _statistic
        known[builtins, 'set'] = set
        known[builtins, 'frozenset'] = frozenset
    for copyreg in ('copyreg', 'copy_reg'):
        known[copyreg, '_reconstructor'] = _reconstructor
    for core in ('core', '_core'):  # numpy 1's name and numpy 2's
        known[f'numpy.{core}.multiarray', '_reconstruct'] = _reconstruct
        known[f'numpy.{core}.multiarray', 'scalar'] = scalar
    return known


# What a file may name and call, and what it may name only.
_FUNCTIONS = _functions()
_VALUES = {
    ('builtins', 'object'): object,
    ('__builtin__', 'object'): object,
    ('mmengine.logging.history_buffer', 'HistoryBuffer'): HistoryBuffer,
    ('numpy', 'ndarray'): np.ndarray,
    **{('torch', name): dtype for name, dtype in vars(torch).items() if type(dtype) is torch.dtype},
}

_ATTRIBUTES = {
    HistoryBuffer: ('max_length', '_log_history', '_count_history', '_statistics_methods'),
    OrderedDict: ('_metadata',),
}


class Unpickler(pickle._Unpickler):
    """Python's own unpickler, with the steps that could run something narrowed."""

    dispatch = dict(pickle._Unpickler.dispatch)
    reader: Optional[torch._C.PyTorchFileReader] = None

    def find_class(self, module: str, name: str) -> Any:
        for known in (_FUNCTIONS, _VALUES):
            if (module, name) in known:
                return known[module, name]
        raise UnsafeCheckpointError(f'{module}.{name}')

    def get_extension(self, code: int) -> None:
        raise UnsafeCheckpointError(f'the extension {code} of copyreg')

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        # By identity: what a call has returned is no function to call.
        if not any(function is known for known in _FUNCTIONS.values()):
            raise UnsafeCheckpointError(f'a call of {_in_short(function)}')
        self.append(function(*arguments))

    def _new(self) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        if cls is not HistoryBuffer or arguments:
            raise UnsafeCheckpointError(f'a new {_in_short(cls)}')
        self.append(HistoryBuffer.__new__(HistoryBuffer))

    def _set_state(self) -> None:
        state, owner = self.stack.pop(), self.stack[-1]
        if isinstance(owner, np.ndarray):
            _set_array(owner, state)
            return
        if isinstance(owner, np.dtype):
            _set_byte_order(owner, state)
            return
        # No name but those of data: another could take a method's place.
        if type(owner) is HistoryBuffer and isinstance(state, dict):
            # The same functions under another name; a new buffer has them by itself.
            state.pop('statistics_methods', None)
            owner._set_default_statistics()
        names = _ATTRIBUTES.get(type(owner), ())
        if not isinstance(state, dict) or not set(state) <= set(names):
            raise UnsafeCheckpointError(f'attributes set on {type(owner).__name__}')
        owner.__dict__.update(state)

    def _refuse(self) -> None:
        raise UnsafeCheckpointError('an object of an old pickle protocol')

    def _load_storage(self) -> None:
        if self.reader is not None:
            _check_storage(self.reader, *self.stack[-1])
        self.load_binpersid()

    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.BUILD[0]] = _set_state
    dispatch[pickle.BINPERSID[0]] = _load_storage
    for _opcode in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX):
        dispatch[_opcode[0]] = _refuse


def _check_storage(reader, kind, storage_type, key, location, count) -> None:
    # torch before 2.10 believes the count, and shows whatever memory comes after the record.
    name = f'data/{key}'
    if hasattr(reader, 'get_record_size'):
        size = reader.get_record_size(name)
    else:
        size = len(reader.get_record(name))
    if not isinstance(count, int) or count * torch._utils._element_size(storage_type.dtype) != size:
        raise pickle.UnpicklingError(f'a storage of {_in_short(count)} elements has {size} bytes')


def _pickle_module(reader: Optional[torch._C.PyTorchFileReader]) -> SimpleNamespace:
    """What ``torch.load(pickle_module=)`` asks of a module, which torch derives its own from."""
    unpickler = type('Unpickler', (Unpickler,), dict(reader=reader))

    def load(file, **kwargs) -> Any:
        return unpickler(file, **kwargs).load()

    return SimpleNamespace(__name__=__name__, Unpickler=unpickler, load=load)


def load(file: Any, map_location: Any = None) -> Any:
    """Read a checkpoint as ``torch.load`` does, and run nothing of it.

    Args:
        file (str | BinaryIO): Path or opened file.
        map_location: As ``torch.load`` takes it.

    Raises:
        UnsafeCheckpointError: If the file asks for anything but tensors and plain data; the
            message names the file and what it asked for.
        UnpicklingError: If it is damaged.
    """
    is_path = isinstance(file, (str, os.PathLike))
    name = os.fspath(file) if is_path else 'the checkpoint'
    if is_path and _is_trusted(name):
        print_log(
            f'{name} is loaded as it is, because {TRUST} names it: it may run any code',
            logger='current',
            level=logging.WARNING,
        )
        return torch.load(file, map_location=map_location, weights_only=False)
    try:
        pickle_module = _pickle_module(_archive_reader(file))
        content = torch.load(
            file, map_location=map_location, pickle_module=pickle_module, weights_only=False
        )
    except UnsafeCheckpointError as error:
        remedy = f'; if you trust who made it: {TRUST}={name}' if is_path else ''
        raise UnsafeCheckpointError(
            f'{name} asks for {error}, which has no place in a checkpoint; refused, and '
            f'nothing of it was run{remedy}'
        ) from None
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(f"{name} can't be read as a checkpoint ({error})") from None
    meta = content.get('meta') if isinstance(content, dict) else None
    if isinstance(meta, dict):
        # Runner.resume would run it as Python. MMEngine itself writes "cfg", which it does not.
        meta.pop('config', None)
    return content


def _is_trusted(path: str) -> bool:
    trusted = filter(None, os.environ.get(TRUST, '').split(os.pathsep))
    return os.path.realpath(path) in {os.path.realpath(entry) for entry in trusted}


def _archive_reader(file: Any) -> Optional[torch._C.PyTorchFileReader]:
    """Return what reads the records of a zip archive, None for a file of torch before 1.6.

    Raises for the two formats of torch that are not read by the unpickler above.
    """
    is_path = isinstance(file, (str, os.PathLike))
    with open(file, 'rb') if is_path else _Rewound(file) as opened:
        if opened.read(4) == b'PK\x03\x04':
            opened.seek(0)
            # The reader that torch.load itself asks, by name since this one will be closed.
            reader = torch._C.PyTorchFileReader(os.fspath(file) if is_path else opened)
            if 'constants.pkl' in reader.get_all_records():
                raise UnsafeCheckpointError('a TorchScript program')
            return reader
        opened.seek(0)
        try:
            tarfile.open(fileobj=opened, mode='r:').close()
        except tarfile.TarError:
            return None
        raise UnsafeCheckpointError('a tar archive of torch before 0.4')


class _Rewound:
    """An opened file, read from here and then left where it was."""

    def __init__(self, file: Any) -> None:
        self.file, self.start = file, file.tell()

    def __enter__(self) -> Any:
        return self.file

    def __exit__(self, *_) -> None:
        self.file.seek(self.start)


def check_hash(path: str, published_as: str) -> None:
    """Raise if a published name carries a hash, and the file's is another.

    Raises:
        UnpicklingError: Naming both hashes.
    """
    match = _PUBLISHED.search(published_as)
    if match is None:
        return
    sha256 = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            sha256.update(block)
    if not sha256.hexdigest().startswith(match[1]):
        raise pickle.UnpicklingError(
            f'{path} is damaged: its SHA-256 begins with {sha256.hexdigest()[:8]}, its name '
            f'says {match[1]}; delete it and download it again'
        )


def load_url(
    url: str,
    model_dir: Optional[str] = None,
    map_location: Any = None,
    progress: bool = True,
    **kwargs,
) -> Any:
    """Download a checkpoint into torch's cache, unless it is there, check and read it."""
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(path):
        torch.hub.download_url_to_file(url, path, progress=progress)
    check_hash(path, os.path.basename(path))
    return load(path, map_location)


class _Torch:
    """torch, as MMEngine's module of checkpoint loaders sees it."""

    load = staticmethod(load)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def enable() -> None:
    mmengine_checkpoint.torch = _Torch()
    mmengine_checkpoint.load_url = load_url
