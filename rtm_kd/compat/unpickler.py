"""An unpickler for checkpoints, which knows their few types and calls nothing else.

It is Python's own, with every step narrowed that could run something, write into something, or
make more than the file holds. Each argument of a call and each field of a state has a check: a
type that the value must have exactly, or a function that says whether it fits.
"""

import math
import os
import pickle
import re
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Optional

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

try:
    from numpy._core.multiarray import scalar
except ImportError:
    from numpy.core.multiarray import scalar

# Bounds that no checkpoint reaches. Only what is repeated in a file, or read, decoded and put
# into an array, takes more memory than the file itself.
_TIMES_ITS_SIZE = 4
REPEATED = 2**20  # elements of a tensor, or values, regardless of the file's size
_DEEPEST = 100  # nested values
_MOST_DIMENSIONS = 32
_LONGEST_LINE = 1000  # of a number that is written in digits
_LONGEST_NAME = 200

_ATOMS = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)
# Numbers, text and objects. A record's fields may lie outside its bytes.
_DTYPE = re.compile(r'[<>=|]?([biufc]\d{1,2}|O8?|[SU]\d{1,5})')
_ATTRIBUTES = {
    HistoryBuffer: {'max_length', '_log_history', '_count_history', '_statistics_methods'},
    OrderedDict: {'_metadata'},
}


class UnsafeCheckpointError(pickle.UnpicklingError):
    """A file that asks for something that has no place in a checkpoint."""


def _fits(values: Any, *checks: Any) -> bool:
    """Return whether values are a tuple with one value for each check, which it passes."""
    fits = type(values) is tuple and len(values) == len(checks)
    return fits and all(map(_passes, values, checks))


def _passes(value: Any, check: Any) -> bool:
    return type(value) is check if isinstance(check, type) else check(value)


def _is_anything(value: Any) -> bool:
    return True


def _is(*expected: Any) -> Callable[[Any], bool]:
    kinds = set(map(type, expected))
    return lambda value: type(value) in kinds and value in expected


def _is_size(value: Any) -> bool:
    # Exactly an int: a product of numpy's or torch's numbers may overflow.
    return type(value) is int and value >= 0


def _is_sizes(values: Any) -> bool:
    fits = isinstance(values, (tuple, list)) and len(values) <= _MOST_DIMENSIONS
    return fits and all(map(_is_size, values))


def _is_row(values: Any) -> bool:
    return type(values) in (tuple, list)


def _is_rows_of_two(values: Any) -> bool:
    return _is_row(values) and all(_is_row(pair) and len(pair) == 2 for pair in values)


def _is_dtype(value: Any) -> bool:
    return isinstance(value, np.dtype)


_STORAGE = (_is('storage'), torch.serialization.StorageType, str, str, _is_size)
# With a view of a storage, which torch has not used since 0.4.
_OLD_STORAGE = (*_STORAGE, _is(None))


def _is_no_hooks(hooks: Any) -> bool:
    if hooks:
        raise UnsafeCheckpointError('a tensor with backward hooks')
    return True


def _check_keys(keys: Iterable) -> None:
    # Anything else might take forever to hash.
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(type(part) in _ATOMS or isinstance(part, np.generic) for part in parts):
            raise UnsafeCheckpointError(f'{_in_short(key)} as a key')


def _in_short(value: Any) -> str:
    # One line, regardless of what a file has put together.
    if isinstance(value, (str, int, tuple)):
        return reprlib.repr(value).split('\n')[0]
    return getattr(value, '__qualname__', f'an object of {type(value).__name__}')


class _Function:
    """A function that a file may call; the annotations of its parameters are their checks."""

    def __init__(self, function: Callable, refusal: str) -> None:
        self.function, self.refusal = function, refusal
        self.checks = function.__annotations__.values()

    def __call__(self, *arguments: Any) -> Any:
        for value, check in zip(arguments, self.checks):
            if not _passes(value, check):
                raise UnsafeCheckpointError(f'{self.refusal} {_in_short(value)}')
        return self.function(*arguments)


def _ordered_dict(pairs: _is_rows_of_two = ()):
    _check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _set(items: _is_row = ()):
    _check_keys(items)
    return set(items)


def _frozenset(items: _is_row = ()):
    return frozenset(_set(items))


def _size(sizes: _is_sizes = ()):
    return torch.Size(sizes)


def _device(kind: str, index: lambda index: index is None or type(index) is int = None):
    return torch.device(kind) if index is None else torch.device(kind, index)


def _method(
    owner: _is(HistoryBuffer, OneCycleParamScheduler),
    name: _is('min', 'max', 'current', 'mean', '_annealing_cos', '_annealing_linear'),
):
    # A pickled HistoryBuffer finds its own statistics with getattr, and the state of a OneCycleLR
    # its curve.
    return getattr(owner, name)


def _encode(text: str, encoding: _is('latin1', 'latin-1')):
    # Bytes, as pickle's protocol 2 spells them.
    return text.encode('latin-1')


def _rebuild_tensor(
    storage: lambda storage: isinstance(storage, torch.storage.TypedStorage),
    offset: _is_size,
    size: _is_sizes,
    stride: _is_sizes,
    requires_grad: bool = False,
    backward_hooks: _is_no_hooks = (),
    metadata: _is_anything = None,
):
    elements = storage._size()  # size() warns
    extent = sum((n - 1) * step for n, step in zip(size, stride)) + 1 if all(size) else 0
    if len(size) != len(stride) or offset + extent > elements:
        # torch would enlarge the storage and expose uninitialised memory.
        raise pickle.UnpicklingError(f'a tensor of size {_in_short(size)} exceeds its storage')
    if math.prod(size) > max(elements, REPEATED):
        raise pickle.UnpicklingError(f'a tensor of size {_in_short(size)} repeats its storage')
    tensor = torch._utils._rebuild_tensor_v2
    return tensor(storage, offset, size, stride, requires_grad, OrderedDict())


def _rebuild_parameter(data: torch.Tensor, requires_grad: bool, backward_hooks: _is_no_hooks):
    return torch.nn.Parameter(data, requires_grad)


def _reconstructor(cls: _is(HistoryBuffer), base: _is(object), state: _is(None)):
    # How a HistoryBuffer begins that was pickled with protocol 0 or 1.
    return HistoryBuffer.__new__(HistoryBuffer)


def _reconstruct(cls: _is(np.ndarray), shape: _is((0,)), dtype: _is_anything):
    # An array as it begins; its shape and content come with its state.
    return np.empty(0, np.uint8)


def _dtype(
    name: lambda name: type(name) is str and _DTYPE.fullmatch(name),
    align: _is_anything = False,
    copy: _is_anything = False,
):
    return np.dtype(name, copy=True)


def _scalar(dtype: lambda dtype: _is_dtype(dtype) and not dtype.hasobject, data: bytes):
    # numpy reads as many bytes as the dtype says.
    if len(data) != dtype.itemsize:
        raise pickle.UnpicklingError('a number whose bytes are not of its size')
    return scalar(dtype, data)


# What a file may name, and what it gets. Only a `_Function` may it call, too.
_KNOWN = {
    'builtins.object': object,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler': OneCycleParamScheduler,
    'numpy.ndarray': np.ndarray,
    **{f'torch.{name}': kind for name, kind in vars(torch).items() if type(kind) is torch.dtype},
    '_codecs.encode': _Function(_encode, '_codecs.encode of'),
    'builtins.frozenset': _Function(_frozenset, 'a set of'),
    'builtins.getattr': _Function(_method, 'builtins.getattr of'),
    'builtins.set': _Function(_set, 'a set of'),
    'collections.OrderedDict': _Function(_ordered_dict, 'an OrderedDict of'),
    'copyreg._reconstructor': _Function(_reconstructor, 'copyreg._reconstructor of'),
    'numpy.core.multiarray._reconstruct': _Function(_reconstruct, 'an array of'),
    'numpy.core.multiarray.scalar': _Function(_scalar, 'a number of'),
    'numpy.dtype': _Function(_dtype, 'the dtype'),
    'torch.Size': _Function(_size, 'a torch.Size of'),
    'torch._utils._rebuild_parameter': _Function(_rebuild_parameter, 'a parameter of'),
    'torch._utils._rebuild_tensor': _Function(_rebuild_tensor, 'a tensor of'),
    'torch._utils._rebuild_tensor_v2': _Function(_rebuild_tensor, 'a tensor of'),
    'torch.device': _Function(_device, 'the device'),
}
# Names of Python 2 and of numpy 2.
_RENAMED = {
    '__builtin__': 'builtins',
    'copy_reg': 'copyreg',
    'numpy._core.multiarray': 'numpy.core.multiarray',
}


def _set_byte_order(dtype: np.dtype, state: Any) -> None:
    # Everything else that numpy lets a file set is the dtype's own already, or a lie: with
    # objects declared as plain data, numpy would follow addresses that the file holds.
    own = dtype.__reduce__()[2]
    if not _fits(state, *map(type, own)) or (state[:1], state[2:]) != (own[:1], own[2:]):
        raise UnsafeCheckpointError(f'flags set on the dtype {dtype}')
    dtype.__setstate__(state)


def _set_array(array: np.ndarray, state: Any) -> None:
    fits = _fits(state, int, tuple, _is_dtype, bool, _is_anything) and _is_sizes(state[1])
    if fits:
        # numpy does not count the objects of a list.
        _, shape, dtype, _, data = state
        kind, itemsize = (list, 1) if dtype.hasobject else (bytes, dtype.itemsize)
        fits = type(data) is kind and len(data) == math.prod(shape) * itemsize
    if not fits:
        raise pickle.UnpicklingError('an array whose data are not of its size')
    if dtype.hasobject and not all(type(item) in _ATOMS for item in data):
        # Nested arrays are freed by an unbounded recursion.
        raise UnsafeCheckpointError('an array of other objects than numbers and text')
    array.__setstate__(state)


def _set_attributes(owner: Any, state: Any) -> None:
    if type(owner) is HistoryBuffer and isinstance(state, dict):
        # The same functions under another name; a new buffer has them already.
        state.pop('statistics_methods', None)
        owner._set_default_statistics()
    # Only names of data: another one could replace a method.
    if not isinstance(state, dict) or not state.keys() <= _ATTRIBUTES.get(type(owner), set()):
        raise UnsafeCheckpointError(f'attributes set on {type(owner).__name__}')
    owner.__dict__.update(state)


def _writing(opcode: bytes, at: int, into: tuple[type, ...], keys: slice = slice(0)) -> Callable:
    """Return an opcode's own step, after a check of what it writes into and of its keys.

    What it writes into is at this place of the stack, 0 for below the mark. It is of one of these
    types; without any the step makes a new object.
    """
    step = pickle._Unpickler.dispatch[opcode[0]]

    def checked(self: 'Unpickler') -> None:
        if into:
            owner = self.stack[at] if at else self.metastack[-1][-1]
            if type(owner) not in into:
                raise UnsafeCheckpointError(f'items of {_in_short(owner)}')
        _check_keys(self.stack[keys])
        step(self)

    return checked


class Unpickler(pickle._Unpickler):
    """Python's own unpickler, with the steps that could do harm narrowed."""

    dispatch = dict(pickle._Unpickler.dispatch)
    #: Record of the archive -> its size in bytes; None for a file of torch before 1.6.
    records: Optional[dict[str, int]] = None
    #: Key of a storage met -> its elements and bytes.
    storages: dict[str, tuple[int, int]] = {}
    made, limit = 0, REPEATED  # bytes

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get(f'{_RENAMED.get(module, module)}.{name}')
        if known is None or '.' in name:
            asked = f'{module}.{name}'
            fits = asked.isprintable() and len(asked) <= _LONGEST_NAME
            raise UnsafeCheckpointError(asked if fits else ascii(asked)[:_LONGEST_NAME])
        return known

    def _make(self, size: int) -> None:
        # A file may have one part of it made into something again and again.
        self.made += size
        if self.made > self.limit:
            raise pickle.UnpicklingError(f'what it holds takes more than {self.limit} bytes')

    def _make_of(self, parts: tuple) -> None:
        self._make(sum(len(part) for part in parts if isinstance(part, (str, bytes, list, tuple))))

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Function or type(arguments) is not tuple:
            raise UnsafeCheckpointError(f'{_in_short(function)} called with {_in_short(arguments)}')
        self._make_of(arguments)
        self.append(function(*arguments))

    def _new(self) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        if cls is not HistoryBuffer or arguments:
            raise UnsafeCheckpointError(f'a new {_in_short(cls)}')
        self.append(HistoryBuffer.__new__(HistoryBuffer))

    def _set_state(self) -> None:
        state, owner = self.stack.pop(), self.stack[-1]
        if isinstance(state, tuple):
            self._make_of(state)
        if isinstance(owner, np.ndarray):
            _set_array(owner, state)
        elif isinstance(owner, np.dtype):
            _set_byte_order(owner, state)
        else:
            _set_attributes(owner, state)

    def _load_storage(self) -> None:
        saved_as = self.stack[-1]
        if not _fits(saved_as, *(_STORAGE if self.records is not None else _OLD_STORAGE)):
            raise UnsafeCheckpointError(f'the storage {_in_short(saved_as)}')
        _, kind, key, _, count = saved_as[:5]
        size = count * torch._utils._element_size(kind.dtype)
        if key not in self.storages:
            self.storages[key] = count, size
            self._make(size)
            has = size if self.records is None else self.records.get(f'data/{key}', 0)
            if has != size:
                # torch before 2.10 believes the count, and reads memory beyond the record.
                raise pickle.UnpicklingError(f'a storage of {count} elements has {has} bytes')
        elif self.storages[key] != (count, size):
            raise pickle.UnpicklingError(f'two storages {_in_short(key)}')
        self.load_binpersid()

    def _number(self) -> None:
        line = self.readline()
        if len(line) > _LONGEST_LINE:
            raise pickle.UnpicklingError(f'a number of {len(line)} digits')
        # Booleans are spelled like this.
        special = {b'00\n': False, b'01\n': True}
        self.append(special[line] if line in special else int(line.rstrip(b'L\n'), 0))

    def _refuse(self) -> None:
        raise UnsafeCheckpointError('an object of an old pickle protocol')

    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.BUILD[0]] = _set_state
    dispatch[pickle.BINPERSID[0]] = _load_storage
    dispatch[pickle.INT[0]] = dispatch[pickle.LONG[0]] = _number
    for _opcode, *_how in (
        (pickle.SETITEM, -3, (dict, OrderedDict), slice(-2, -1)),
        (pickle.SETITEMS, 0, (dict, OrderedDict), slice(None, None, 2)),
        (pickle.DICT, 0, (), slice(None, None, 2)),
        (pickle.APPEND, -2, (list,)),
        (pickle.APPENDS, 0, (list,)),
        (pickle.ADDITEMS, 0, (set,), slice(None)),
        (pickle.FROZENSET, 0, (), slice(None)),
    ):
        dispatch[_opcode[0]] = _writing(_opcode, *_how)
    for _opcode in (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.LONG4),
        *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
    ):
        dispatch[_opcode[0]] = _refuse


class PickleModule:
    """What ``torch.load(pickle_module=)`` asks of a module, for one file of this size in bytes."""

    __name__ = __name__

    def __init__(self, records: Optional[dict[str, int]], size: int) -> None:
        bounds = dict(records=records, limit=_TIMES_ITS_SIZE * size + REPEATED, storages={})
        self.Unpickler = type('Unpickler', (Unpickler,), bounds)

    def load(self, file: Any, **kwargs: Any) -> Any:
        content = self.Unpickler(file, **kwargs).load()
        if self.Unpickler.storages:
            # The last thing that torch reads of an old file: the order of the storages.
            _check_old_storages(file, content, self.Unpickler.storages)
        return content


def _check_old_storages(file: Any, keys: Any, storages: dict[str, tuple[int, int]]) -> None:
    """Raise unless the content of its storages follows in a file of torch before 1.6.

    A storage without content would expose uninitialised memory, and the sizes that torch reads
    there overflow when it multiplies them.
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


def check_nesting(content: Any, left: int) -> None:
    """Raise UnpicklingError if values are nested too deep, or shared so often that too many."""
    level = [content]
    for _ in range(_DEEPEST):
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
        level = [value for value in inner if isinstance(value, (dict, list, tuple, HistoryBuffer))]
        if not level:
            return
    raise pickle.UnpicklingError(f'values in values, more than {_DEEPEST} deep')
