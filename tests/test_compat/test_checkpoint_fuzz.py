"""Fuzzed checkpoints: any bytes are read or refused, and no code in them runs."""

import pickletools
import zipfile

import numpy as np
import pytest
import torch
from helpers import Call
from hypothesis import given, note
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from watch import nothing_happens_outside

from rtm_kd.utils.checkpoint import check_state_dict, newest_checkpoint, read_checkpoint
from rtm_kd.utils.errors import UsageError

_CONTENT = dict(
    meta=dict(epoch=3, iter=9, classes=('a', 'b')),
    state_dict={'backbone.weight': torch.arange(6.0).view(2, 3), 'neck.bias': torch.ones(2)},
    optimizer=dict(state={0: dict(step=torch.tensor(3.0))}, param_groups=[dict(lr=0.1)]),
    message_hub=dict(log_scalars={'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])}),
)
# Names a pickle may refer to, harmful ones among them.
_NAMES = st.sampled_from(
    [
        *['os system', 'posix system', 'builtins eval', 'builtins exec', 'builtins getattr'],
        *['builtins open', 'builtins __import__', 'subprocess Popen', 'shutil rmtree'],
        *['torch load', 'torch.hub load', 'torch._utils _rebuild_tensor_v2', 'operator attrgetter'],
        *['collections OrderedDict', 'numpy dtype', 'torch Size', 'numpy._core.multiarray scalar'],
        *['mmengine.logging.history_buffer HistoryBuffer', 'builtins set', 'functools partial'],
        *['_codecs encode', 'copyreg _reconstructor', 'builtins object', 'builtins getattr.x'],
        *['numpy._core.multiarray _reconstruct', 'numpy ndarray', 'mmengine Config'],
    ]
)
_OPERANDS = st.sampled_from(
    [b'Vtouch /tmp/owned\n', b'V__globals__\n', b'I7\n', b'K\x05', b'N', b']', b'}', b'(', b')']
)
_STEPS = st.sampled_from(
    [
        *[b'R', b'b', b't', b'o', b's', b'u', b'a', b'e', b'0', b'2', b'Q', b'q\x00', b'h\x00'],
        *[b'\x81', b'\x85', b'\x86', b'\x8f', b'\x90', b'\x91', b'\x92', b'\x93', b'd', b'Q'],
        # Deep nesting, sizes beyond the end of the file, and text that is not a name.
        *[b'\x85' * 2000, b'2\x86' * 60, b'\x96' + b'\xff\xff\xff\x7f' + bytes(4) + b'a'],
        *[b'\x8b\xff\xff\xff\x7f', b'\x8e' + b'\xff' * 7 + b'\x7f', b'I' + b'9' * 5000 + b'\n'],
        *[b'Vos\nVsystem\n\x93', b'V\\u000a\nV\\ud800\n\x93', b'V' + b'a' * 9999 + b'\nV\n\x93'],
        b'VStorage\nVFloatStorage\n\x93',
    ]
)
_GLOBALS = _NAMES.map(lambda name: b'c' + name.replace(' ', '\n').encode() + b'\n')
_LEAVES = st.one_of(
    *[st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)],
    *[st.binary(max_size=5), st.builds(torch.zeros, st.integers(0, 3))],
)
_KEYS = st.one_of(
    st.sampled_from(['state_dict', 'meta', 'optimizer', 'iter', 'backbone.weight', 'neck.bias']),
    *[st.integers(), st.text(max_size=3)],
)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return tmp_path_factory.mktemp('checkpoints') / 'epoch_3.pth'


@pytest.fixture(scope='module')
def saved(path):
    torch.save(_CONTENT, path)
    return path.read_bytes()


_RECONSTRUCT, _BEGUN, _ = np.empty(0).__reduce__()
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS = st.sampled_from([-1, 0, 1, 4, 8, 16, 63, 2**31])
_DTYPES = st.builds(
    lambda name, state: Call(np.dtype, name, False, True, state=state),
    st.sampled_from(['f8', 'i8', 'O8', 'U2', 'S0', 'V8', 'i8,O', 'M8']),
    st.one_of(
        *[st.none(), st.just((3, '>', None, None, None, -1, -1, 0))],
        st.tuples(
            *[st.sampled_from([3, 4]), st.sampled_from('<>|'), st.none()],
            *[st.sampled_from([None, ('a',)]), st.sampled_from([None, {'a': ('i8', 64)}])],
            *[_NUMBERS, _NUMBERS, _NUMBERS],
        ),
    ),
)
_DATA = st.one_of(
    *[st.binary(max_size=16), st.just(b'A' * 8), st.lists(st.integers(), max_size=2)],
    *[st.text(max_size=8), st.none()],
)
_SIZES = st.one_of(
    st.integers(-1, 3),
    # The product overflows.
    st.sampled_from([np.uint8(16), np.int64(2**62), np.float64(2), 2**70, True, torch.tensor(2)]),
)
_ARRAYS = st.builds(
    lambda *state: Call(_RECONSTRUCT, *_BEGUN, state=(1, *state)),
    *[st.lists(_SIZES, max_size=2).map(tuple), _DTYPES, st.booleans(), _DATA],
)
_SCALARS = st.builds(lambda *arguments: Call(_SCALAR, *arguments), _DTYPES, _DATA)


def write(path, data):
    """Write a pickle into a zip file laid out as torch.save does."""
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('archive/data.pkl', data)
        file.writestr('archive/version', '3\n')
        file.writestr('archive/data/0', bytes(24))


def is_read_or_refused(path):
    with nothing_happens_outside(path.parent):
        try:
            newest_checkpoint(str(path.parent))
            content = read_checkpoint(str(path))
        except UsageError as error:
            note(str(error))
            assert path.name in str(error) and '\n' not in str(error)
            return
        # Reads every element: a forged array would crash here.
        assert str(content)
        try:
            check_state_dict(content['state_dict'], _CONTENT['state_dict'], str(path), 'it')
        except UsageError as error:
            assert path.name in str(error)


@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    kept=st.floats(0, 1),
)
def test_a_damaged_file_is_read_or_refused(path, saved, edits, kept):
    data = bytearray(saved)
    for place, value in edits:
        data[int(place * len(data))] = value
    path.write_bytes(data[: len(data) - int((1 - kept) ** 4 * len(data))])
    is_read_or_refused(path)


@given(program=st.lists(st.one_of(_GLOBALS, _OPERANDS, _STEPS), max_size=20))
def test_an_assembled_pickle_is_read_or_refused(path, program):
    write(path, b'\x80\x02' + b''.join(program) + b'.')
    is_read_or_refused(path)


@given(data=st.data())
def test_a_checkpoint_with_changed_opcodes_is_read_or_refused(path, saved, data):
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as file:
        name = next(name for name in file.namelist() if name.endswith('data.pkl'))
        pickled = file.read(name)
    positions = [position for _, _, position in pickletools.genops(pickled)]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(positions))
        step = data.draw(st.one_of(_STEPS, _OPERANDS, _GLOBALS))
        pickled = pickled[:at] + step + pickled[at + data.draw(st.integers(0, 2)) :]
    write(path, pickled)
    is_read_or_refused(path)


@given(
    content=st.recursive(
        _LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_a_checkpoint_of_other_contents_is_read_or_refused(path, content):
    torch.save(content, path)
    is_read_or_refused(path)


@given(array=st.one_of(_ARRAYS, _SCALARS, _DTYPES))
def test_forged_arrays_are_read_or_refused(path, array):
    torch.save(dict(state_dict=dict(weight=torch.ones(1)), meta=dict(array=array)), path)
    is_read_or_refused(path)
