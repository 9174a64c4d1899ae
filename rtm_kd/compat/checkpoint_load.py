"""MMEngine's checkpoints, read without running anything that a file brings.

For: mmengine <= 0.10.7, with any torch.
Fault: MMEngine calls ``torch.load`` plainly. Before torch 2.6 that runs whatever a file
says; since then it refuses every training checkpoint, for each carries its message hub
(``HistoryBuffer`` objects with numpy arrays and numpy scalars).
Here: what MMEngine's loaders call is an unpickler that knows the few types of a checkpoint,
calls nothing else and writes into nothing else. A download, and a downloaded file met again,
is checked against the hash in its name; one without a hash is kept by its address.
``RTM_KD_TRUST=FILE`` names files, separated like a PATH, that are loaded without any of this,
with a warning in the log.
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
# Bounds that no checkpoint meets. Of what one file holds nothing takes more than its own size,
# but what is repeated in it, or read, decoded and put into an array.
_TIMES_ITS_SIZE = 4
_REPEATED = 2**20  # elements of a tensor, or values, whatever the file's size
_DEEPEST = 100  # values in values
_MOST_RECORDS = 100_000
_MOST_DIMENSIONS = 32
_LONGEST_LINE = 1000  # of a number that is written in digits
_LONGEST_NAME = 200
_PAGE_BEGINS = 100  # bytes
# How torch.save began a file before torch 1.6.
_MAGIC = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)
# Numbers, text and objects. A record's fields may lie outside of its bytes.
_DTYPE = re.compile(r'[<>=|]?([biufc]\d{1,2}|O8?|[SU]\d{1,5})')
_VIEWS = (None,)
_CONTAINERS = (dict, list, tuple, HistoryBuffer)
_SIZED = (str, bytes, list, tuple)
_ATOMS = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)
# As OpenMMLab and torchvision publish them: <name>-<first digits of the SHA-256>.pth
_PUBLISHED = re.compile(r'-([0-9a-f]{8,64})\.pth$')


class UnsafeCheckpointError(pickle.UnpicklingError):
    """A file that asks for what has no place in a checkpoint."""


def _printable(name: str) -> str:
    return (
        name if name.isprintable() and len(name) <= _LONGEST_NAME else ascii(name)[:_LONGEST_NAME]
    )


def _in_short(value: Any) -> str:
    # One line, whatever a file has put together.
    if isinstance(value, (str, int, tuple)):
        return reprlib.repr(value).split('\n')[0]
    return getattr(value, '__qualname__', f'an object of {type(value).__name__}')


def _is_sizes(values: Any) -> bool:
    # Of the type itself: the product of numbers of numpy or torch wraps.
    return (
        isinstance(values, (tuple, list))
        and len(values) <= _MOST_DIMENSIONS
        and all(type(n) is int and n >= 0 for n in values)
    )


def _check_keys(keys: Any) -> None:
    # What takes no time to hash, however it was put together.
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(type(part) in _ATOMS or isinstance(part, np.generic) for part in parts):
            raise UnsafeCheckpointError(f'{_in_short(key)} as a key')


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    if type(pairs) not in (tuple, list) or not all(
        type(pair) in (tuple, list) and len(pair) == 2 for pair in pairs
    ):
        raise UnsafeCheckpointError(f'an OrderedDict of {_in_short(pairs)}')
    _check_keys(pair[0] for pair in pairs)
    return OrderedDict(pairs)


def _set(items: Any = ()) -> set:
    if type(items) not in (tuple, list):
        raise UnsafeCheckpointError(f'a set of {_in_short(items)}')
    _check_keys(items)
    return set(items)


def _frozenset(items: Any = ()) -> frozenset:
    return frozenset(_set(items))


def _size(sizes: Any = ()) -> torch.Size:
    if not _is_sizes(sizes):
        raise UnsafeCheckpointError(f'a torch.Size of {_in_short(sizes)}')
    return torch.Size(sizes)


def _device(kind: Any, index: Any = None) -> torch.device:
    if type(kind) is not str or (index is not None and type(index) is not int):
        raise UnsafeCheckpointError(f'the device {_in_short(kind)}')
    return torch.device(kind) if index is None else torch.device(kind, index)


def _statistic(owner: Any, name: Any) -> Any:
    # A pickled HistoryBuffer finds its own statistics with getattr.
    if owner is not HistoryBuffer or type(name) is not str or name not in _STATISTICS:
        raise UnsafeCheckpointError(f'builtins.getattr of {_in_short(name)}')
    return getattr(owner, name)


def _encode(text: str, encoding: str) -> bytes:
    # Bytes, as pickle's protocol 2 spells them.
    if type(text) is not str or encoding not in ('latin1', 'latin-1'):
        raise UnsafeCheckpointError(f'_codecs.encode with the codec {_in_short(encoding)}')
    return text.encode('latin-1')


def _rebuild_tensor(
    storage, offset, size, stride, requires_grad=False, backward_hooks=(), metadata=None
) -> torch.Tensor:
    if backward_hooks:
        raise UnsafeCheckpointError('a tensor with backward hooks')
    numbers = (offset,), size, stride
    if not isinstance(storage, torch.storage.TypedStorage) or not all(map(_is_sizes, numbers)):
        raise pickle.UnpicklingError(f'a tensor of {_in_short(storage)} and {_in_short(size)}')
    elements = storage._size()  # size() warns
    extent = sum((n - 1) * step for n, step in zip(size, stride)) + 1 if all(size) else 0
    if len(size) != len(stride) or offset + extent > elements:
        # torch would make the storage larger and show whatever memory it gets.
        raise pickle.UnpicklingError(f'a tensor of size {_in_short(size)} exceeds its storage')
    if math.prod(size) > max(elements, _REPEATED):
        raise pickle.UnpicklingError(f'a tensor of size {_in_short(size)} repeats its storage')
    return torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, requires_grad, OrderedDict()
    )


def _rebuild_parameter(data, requires_grad, backward_hooks) -> torch.nn.Parameter:
    if backward_hooks:
        raise UnsafeCheckpointError('a parameter with backward hooks')
    if type(data) is not torch.Tensor:
        raise UnsafeCheckpointError(f'a parameter of {_in_short(data)}')
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
    if type(name) is not str or not _DTYPE.fullmatch(name):
        raise UnsafeCheckpointError(f'the dtype {_in_short(name)}')
    return np.dtype(name, copy=True)


def _scalar(dtype, data=None) -> np.generic:
    # Without data, or with too many, numpy takes the dtype's word.
    if not isinstance(dtype, np.dtype) or dtype.hasobject or type(data) is not bytes:
        raise UnsafeCheckpointError(f'a number of {_in_short(data)}')
    if len(data) != dtype.itemsize:
        raise pickle.UnpicklingError('a number whose bytes are not of its size')
    return scalar(dtype, data)


def _set_byte_order(dtype: np.dtype, state: Any) -> None:
    # All else that numpy lets a file set is the dtype's own already, or it lies: objects that
    # are said to be none would be made of whatever addresses the file holds.
    own = dtype.__reduce__()[2]
    fits = type(state) is tuple and [*map(type, state)] == [*map(type, own)]
    if not fits or (state[:1], state[2:]) != (own[:1], own[2:]):
        raise UnsafeCheckpointError(f'flags set on the dtype {dtype}')
    dtype.__setstate__(state)


def _set_array(array: np.ndarray, state: Any) -> None:
    # numpy takes a file's word for how many objects a list has.
    fits = type(state) is tuple and len(state) == 5
    if fits:
        version, shape, dtype, is_fortran, data = state
        fits = (
            (type(version), type(shape), type(is_fortran)) == (int, tuple, bool)
            and _is_sizes(shape)
            and isinstance(dtype, np.dtype)
        )
    if fits:
        count = math.prod(shape)
        expected = (list, count) if dtype.hasobject else (bytes, count * dtype.itemsize)
        fits = (type(data), len(data)) == expected if type(data) in (list, bytes) else False
    if not fits:
        raise pickle.UnpicklingError('an array whose data are not of its size')
    if dtype.hasobject and not all(type(item) in _ATOMS for item in data):
        # Arrays in arrays are freed by a recursion without an end.
        raise UnsafeCheckpointError('an array of other objects than numbers and text')
    array.__setstate__(state)


def _functions() -> dict[tuple[str, str], Any]:
    known = {
        ('collections', 'OrderedDict'): _ordered_dict,
        ('numpy', 'dtype'): _dtype,
        ('torch', 'Size'): _size,
        ('torch', 'device'): _device,
        ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
        ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
        ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
        ('_codecs', 'encode'): _encode,
    }
    for builtins in ('builtins', '__builtin__'):  # Python 3's name and Python 2's
        known[builtins, 'getattr'] = _statistic
        known[builtins, 'set'] = _set
        known[builtins, 'frozenset'] = _frozenset
    for copyreg in ('copyreg', 'copy_reg'):
        known[copyreg, '_reconstructor'] = _reconstructor
    for core in ('core', '_core'):  # numpy 1's name and numpy 2's
        known[f'numpy.{core}.multiarray', '_reconstruct'] = _reconstruct
        known[f'numpy.{core}.multiarray', 'scalar'] = _scalar
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
    limit = _REPEATED  # bytes that it may make

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.storages: dict[str, tuple[int, int]] = {}  # key -> elements and bytes
        self.storages_made = self.made = 0

    def _make(self, size: int) -> None:
        # What is made of one part of a file may be made of it again and again.
        self.made += size
        if self.made > self.limit:
            raise pickle.UnpicklingError(f'what it holds takes more than {self.limit} bytes')

    def find_class(self, module: str, name: str) -> Any:
        for known in (_FUNCTIONS, _VALUES):
            if (module, name) in known:
                return known[module, name]
        raise UnsafeCheckpointError(_printable(f'{module}.{name}'))

    def get_extension(self, code: int) -> None:
        raise UnsafeCheckpointError(f'the extension {code} of copyreg')

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        # By identity: what a call has returned is no function to call.
        if not any(function is known for known in _FUNCTIONS.values()):
            raise UnsafeCheckpointError(f'a call of {_in_short(function)}')
        if type(arguments) is not tuple:
            raise UnsafeCheckpointError(f'a call with {_in_short(arguments)}')
        self._make(sum(len(part) for part in arguments if isinstance(part, _SIZED)))
        self.append(function(*arguments))

    def _new(self) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        if cls is not HistoryBuffer or arguments:
            raise UnsafeCheckpointError(f'a new {_in_short(cls)}')
        self.append(HistoryBuffer.__new__(HistoryBuffer))

    def _set_state(self) -> None:
        state, owner = self.stack.pop(), self.stack[-1]
        if isinstance(owner, np.ndarray) and isinstance(state, tuple):
            self._make(sum(len(part) for part in state if isinstance(part, _SIZED)))
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
        saved_as = self.stack[-1]
        # An old file has a place for a view of a storage, which torch has not used since 0.4.
        parts = 5 if self.reader is not None else 6
        if (
            type(saved_as) is not tuple
            or len(saved_as) != parts
            or saved_as[5:] not in ((), _VIEWS)
        ):
            raise UnsafeCheckpointError(f'the storage {_in_short(saved_as)}')
        what, kind, key, location, count = saved_as[:5]
        if (
            [type(part) for part in (what, key, location, count)] != [str, str, str, int]
            or what != 'storage'
            or not isinstance(kind, torch.serialization.StorageType)
            or count < 0
        ):
            raise UnsafeCheckpointError(f'the storage {_in_short(saved_as)}')
        size = count * torch._utils._element_size(kind.dtype)
        if self.storages.setdefault(key, (count, size)) != (count, size):
            raise pickle.UnpicklingError(f'two storages {_in_short(key)}')
        if self.storages_made != len(self.storages):
            self.storages_made = len(self.storages)
            self._make(size)
            if self.reader is not None:
                _check_storage(self.reader, key, count, size)
        self.load_binpersid()

    def _items(self, keys: Any, values: Any) -> None:
        _check_keys(keys)
        if type(self.stack[-1]) not in (dict, OrderedDict) or len(keys) != len(values):
            raise UnsafeCheckpointError(f'items of {_in_short(self.stack[-1])}')
        self.stack[-1].update(zip(keys, values))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._items([key], [value])

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._items(items[::2], items[1::2])

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._items(items[::2], items[1::2])

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise UnsafeCheckpointError(f'items of {_in_short(self.stack[-1])}')
        self.stack[-1].extend(items)

    def _append(self) -> None:
        item = self.stack.pop()
        self._extend([item])

    def _appends(self) -> None:
        items = self.pop_mark()
        self._extend(items)

    def _add_items(self) -> None:
        items = self.pop_mark()
        _check_keys(items)
        if type(self.stack[-1]) is not set:
            raise UnsafeCheckpointError(f'items of {_in_short(self.stack[-1])}')
        self.stack[-1].update(items)

    def _frozen(self) -> None:
        self.append(_frozenset(self.pop_mark()))

    def _number(self) -> None:
        line = self.readline()
        if len(line) > _LONGEST_LINE:
            raise pickle.UnpicklingError(f'a number of {len(line)} digits')
        # Booleans are spelled so.
        special = {b'00\n': False, b'01\n': True}
        self.append(special[line] if line in special else int(line.rstrip(b'L\n'), 0))

    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.BUILD[0]] = _set_state
    dispatch[pickle.BINPERSID[0]] = _load_storage
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.APPEND[0]] = _append
    dispatch[pickle.APPENDS[0]] = _appends
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _frozen
    dispatch[pickle.INT[0]] = dispatch[pickle.LONG[0]] = _number
    for _opcode in (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.LONG4),
        *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    ):
        dispatch[_opcode[0]] = _refuse


def _record_size(reader: torch._C.PyTorchFileReader, name: str) -> int:
    if hasattr(reader, 'get_record_size'):
        return reader.get_record_size(name)
    return len(reader.get_record(name))


def _check_storage(reader: torch._C.PyTorchFileReader, key: str, count: int, expected: int) -> None:
    # torch before 2.10 believes the count, and shows whatever memory comes after the record.
    size = _record_size(reader, f'data/{key}')
    if size != expected:
        raise pickle.UnpicklingError(f'a storage of {_in_short(count)} elements has {size} bytes')


def _check_old_storages(file: Any, keys: Any, storages: dict[str, tuple[int, int]]) -> None:
    """Raise unless what follows in a file of torch before 1.6 is the content of its storages.

    One that is left out shows the memory that it was given, and torch multiplies the sizes that
    it reads there as they wrap.
    """
    fits = type(keys) is list and all(type(key) is str for key in keys)
    fits = fits and sorted(keys) == sorted(storages)
    start = file.tell()
    for key in keys if fits else ():
        count, size = storages[key]
        fits = fits and int.from_bytes(file.read(8), 'little') == count
        file.seek(size, os.SEEK_CUR)
    end = file.tell()
    if not fits or end > file.seek(0, os.SEEK_END):
        raise pickle.UnpicklingError('storages without their content')
    file.seek(start)


def _check_shape(content: Any, left: int) -> None:
    """Raise if values lie too deep in each other, or are so many since they are shared."""
    depth, level = 0, [content]
    while level:
        depth += 1
        inner = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, (list, tuple)):
                inner += value
            if isinstance(value, (HistoryBuffer, OrderedDict)):
                inner += vars(value).values()
            if len(inner) > left:
                raise pickle.UnpicklingError('more values than it has bytes')
        left -= len(inner)
        level = [value for value in inner if isinstance(value, _CONTAINERS)]
        if depth > _DEEPEST:
            raise pickle.UnpicklingError(f'values in values, more than {_DEEPEST} deep')


def _pickle_module(reader: Optional[torch._C.PyTorchFileReader], size: int) -> SimpleNamespace:
    """What ``torch.load(pickle_module=)`` asks of a module, which torch derives its own from."""
    last: list[Unpickler] = []

    class Bounded(Unpickler):
        limit = _TIMES_ITS_SIZE * size + _REPEATED

        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            last.append(self)

    Bounded.reader = reader

    def load(file, **kwargs) -> Any:
        storages = last[-1].storages if last else {}
        content = Bounded(file, **kwargs).load()
        if storages:
            # What torch reads last: in which order they come.
            _check_old_storages(file, content, storages)
        return content

    return SimpleNamespace(__name__=__name__, Unpickler=Bounded, load=load)


def load(file: Any, map_location: Any = None, weights_only: Any = None) -> Any:
    """Read a checkpoint as ``torch.load`` does, and run nothing of it.

    Args:
        file (str | BinaryIO): Path or opened file.
        map_location: As ``torch.load`` takes it.
        weights_only: Later releases of MMEngine pass it. Whatever it is, nothing is run.

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
        reader, size = _archive_reader(file)
        pickle_module = _pickle_module(reader, size)
        content = torch.load(
            file, map_location=map_location, pickle_module=pickle_module, weights_only=False
        )
        _check_shape(content, _REPEATED + size)
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


def _archive_reader(file: Any) -> tuple[Optional[torch._C.PyTorchFileReader], int]:
    """Return what reads the records of a zip archive, None for a file of torch before 1.6.

    And the size of the file, in bytes. Raises for the two formats of torch that are not read by
    the unpickler above, and for an archive that holds more than its file.
    """
    is_path = isinstance(file, (str, os.PathLike))
    with open(file, 'rb') if is_path else _Rewound(file) as opened:
        start = opened.tell()
        size = opened.seek(0, os.SEEK_END) - start
        opened.seek(start)
        head = opened.read(tarfile.BLOCKSIZE)
        opened.seek(start)
        if head.startswith(b'PK\x03\x04'):
            # The reader that torch.load itself asks, by name since this one will be closed.
            reader = torch._C.PyTorchFileReader(os.fspath(file) if is_path else opened)
            records = reader.get_all_records()
            if 'constants.pkl' in records:
                raise UnsafeCheckpointError('a TorchScript program')
            # torch does not compress: these are compressed, or the same bytes many times.
            if len(records) > _MOST_RECORDS or size < sum(
                _record_size(reader, name) for name in records
            ):
                raise pickle.UnpicklingError(f'its {len(records)} records take more than its size')
            return reader, size
        try:
            # Of the first header alone: others may say that they are of any size.
            tarfile.TarInfo.frombuf(head, 'utf-8', 'surrogateescape')
        except tarfile.TarError:
            pass
        else:
            raise UnsafeCheckpointError('a tar archive of torch before 0.4')
        if not head.startswith(_MAGIC):
            raise pickle.UnpicklingError('it does not begin as one')
        return None, size


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
    """Download a checkpoint into torch's cache, unless it is there, check and read it.

    Raises:
        UnpicklingError: Naming the file in the cache, if it can't be read.
    """
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    name = os.path.basename(urlparse(url).path)
    if _PUBLISHED.search(name) is None:
        # Nothing in it says whose it is: other servers have a best.pth, too.
        folder = os.path.join(folder, hashlib.sha256(url.encode()).hexdigest()[:16])
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        torch.hub.download_url_to_file(url, path, progress=progress)
    check_hash(path, name)
    try:
        return load(path, map_location)
    except UnsafeCheckpointError:
        raise
    except pickle.UnpicklingError as error:
        reason = str(error)
    except Exception as error:  # what torch raises on a damaged file differs by version
        said = str(error).strip().partition('\n')[0]
        reason = f"{path} can't be read as a checkpoint ({said})"
    with open(path, 'rb') as file:
        if file.read(_PAGE_BEGINS).lstrip().startswith(b'<'):
            reason = f'{path} is a web page, such as one to log in, and not a checkpoint'
    raise pickle.UnpicklingError(
        f'{reason}; it was downloaded from {url}: delete the file and download it again'
    )


class _Torch:
    """torch, as MMEngine's module of checkpoint loaders sees it."""

    load = staticmethod(load)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def applies() -> bool:
    # Files of strangers are read with every version.
    return True


def enable() -> None:
    mmengine_checkpoint.torch = _Torch()
    mmengine_checkpoint.load_url = load_url
