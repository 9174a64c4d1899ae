import hashlib
import inspect
import io
import logging
import operator
import os
import pickle
import re
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Call
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.optim import OneCycleLR
from mmengine.runner.checkpoint import CheckpointLoader

from rtm_kd.compat import checkpoint_load, unpickler


def read(path):
    """Read a checkpoint as MMEngine's runner, hooks, init_cfg and inferencers do."""
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


@pytest.fixture
def content():
    hub = MessageHub('test_checkpoint_load')
    for loss in (3.0, np.float64(2.0), np.float32(1.0)):
        hub.update_scalar('train/loss', loss)
    hub.update_info('epoch', np.int64(7))
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.BatchNorm1d(2))
    model[0].weight.data = torch.arange(6.0).view(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return dict(
        meta=dict(epoch=7, seed=np.int64(3), classes=('a', 'b'), sizes={torch.Size([2])}),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=hub.state_dict(),
        extra=dict(
            half=torch.ones(2, dtype=torch.bfloat16),
            part=torch.arange(10)[2:8:2],
            parameter=torch.nn.Parameter(torch.ones(1)),
            dtype=torch.float16,
            device=torch.device('cpu'),
            array=np.arange(6).reshape(2, 3),
            objects=np.array(['a', None], dtype=object),
            metadata=OrderedDict(a=1),
        ),
    )


@pytest.fixture
def checkpoint(content, tmp_path):
    path = tmp_path / 'epoch_7.pth'
    torch.save(content, path)
    return path


def check(read: dict, saved: dict) -> None:
    for name, tensor in saved['state_dict'].items():
        assert torch.equal(read['state_dict'][name], tensor)
    assert read['state_dict']._metadata == saved['state_dict']._metadata
    assert read['optimizer']['state'][0]['step'] == 1
    assert read['meta'] == saved['meta']
    assert read['message_hub']['runtime_info']['epoch'] == 7
    history = read['message_hub']['log_scalars']['train/loss']
    assert history.mean(2) == 1.5
    assert history.statistics('max') == 3.0
    extra = read['extra']
    assert extra['part'].tolist() == [2, 4, 6]
    assert extra['half'].dtype is torch.bfloat16 and extra['dtype'] is torch.float16
    assert extra['array'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert extra['objects'].tolist() == ['a', None]


def test_a_training_checkpoint_loads(checkpoint, content):
    check(read(checkpoint), content)


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_the_state_of_a_one_cycle_schedule_loads(tmp_path, strategy):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = OneCycleLR(optimizer, eta_max=1.0, total_steps=10, anneal_strategy=strategy)
    torch.save(dict(param_schedulers=[schedule.state_dict()]), tmp_path / 'epoch_1.pth')
    state = read(tmp_path / 'epoch_1.pth')['param_schedulers'][0]
    assert state['anneal_func'](0.0, 1.0, 0.5) == schedule.anneal_func(0.0, 1.0, 0.5)


def test_a_file_of_torch_before_1_6_loads(content, tmp_path):
    torch.save(content, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    check(read(tmp_path / 'old.pth'), content)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_truncated_file_is_refused_in_one_line(content, tmp_path, zipped):
    path = tmp_path / 'half.pth'
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:100])
    reason = r"half\.pth can't be read as a checkpoint \(.+\)$"
    with pytest.raises(pickle.UnpicklingError, match=reason) as refused:
        checkpoint_load.load(str(path))
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize('name', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_files_of_numpy_1_and_numpy_2_load(checkpoint, content, tmp_path, name):
    path = tmp_path / 'other_numpy.pth'
    renamed = 0
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(path, 'w') as target:
        for item in source.namelist():
            data = source.read(item)
            if item.endswith('data.pkl'):
                data = data.replace(b'numpy._core.', b'numpy.core.')
                data = data.replace(b'numpy.core.multiarray', name)
                renamed = data.count(name)
            target.writestr(item, data)
    assert renamed

    check(read(path), content)


def backward_hook():
    tensor = torch.ones(1, requires_grad=True)
    arguments = (tensor.storage(), 0, (1,), (1,), True, OrderedDict(a=HistoryBuffer))
    return Call(torch._utils._rebuild_tensor_v2, *arguments)


HOSTILE = {
    'a program': (Call(os.system, 'true'), r'posix\.system|nt\.system'),
    'a process': (Call(subprocess.Popen, ['true']), r'\.Popen|subprocess'),
    'eval': (Call(eval, '1 + 1'), r'builtin(s|__)\.eval'),
    'a harmless function': (Call(operator.add, 1, 2), r'operator\.add'),
    'an import': (Call(__import__, 'antigravity'), r'__import__'),
    'getattr of a string': (Call(getattr, 'text', 'join'), r'getattr'),
    'getattr of another attribute': (Call(getattr, HistoryBuffer, '__init__'), r'getattr'),
    'a chain of getattr': (
        Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'),
        r'getattr',
    ),
    'nested': (OrderedDict(a=[(Call(set, [Call(os.getcwd)]),)]), r'getcwd'),
    'a class of an installed package': (torch.nn.Linear(1, 1), r'torch\.nn.*Linear'),
    'a path': (Path('x'), r'pathlib'),
    'torch.load within': (
        Call(torch.storage._load_from_bytes, b''),
        r'_load_from_bytes',
    ),
    'attributes of a class': (Call(getattr, HistoryBuffer, 'mean', state={'a': 1}), r'attributes'),
    'a method in place of another': (
        Call(OrderedDict, state={'items': 1}),
        r'attributes set on OrderedDict',
    ),
    'backward hooks': (backward_hook(), r'backward hooks'),
    # Object dtype: the bytes of the array would be used as addresses of Python objects.
    'objects that are said to be none': (
        Call(np.dtype, 'O8', False, True, state=(3, '|', None, None, None, -1, -1, 0)),
        'flags set on the dtype object',
    ),
    'fields outside of their record': (
        Call(
            np.dtype, 'V8', False, True, state=(3, '|', None, ('a',), {'a': ('i8', 64)}, 8, 1, 16)
        ),
        'the dtype .*V8',
    ),
    'another codec': (Call(__import__('_codecs').encode, 'a', 'rot13'), r'codec'),
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_file_is_refused_by_name(tmp_path, kind, legacy):
    hostile, tried = HOSTILE[kind]
    path = tmp_path / 'bad.pth'
    state_dict = dict(weight=torch.ones(1), more=hostile)
    torch.save(dict(state_dict=state_dict), path, _use_new_zipfile_serialization=not legacy)

    with pytest.raises(pickle.UnpicklingError, match=rf'bad\.pth asks for .*({tried}).*refused'):
        read(path)


def test_what_is_refused_has_not_run(tmp_path):
    path, trace = tmp_path / 'bad.pth', tmp_path / 'trace'
    torch.save(dict(state_dict=Call(os.system, f'touch "{trace}"')), path)

    with pytest.raises(pickle.UnpicklingError):
        read(path)
    assert not trace.exists()

    # The file's effect, had it been executed.
    torch.load(str(path), weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize(
    'pickled',
    [
        b'cposix\nsystem\n(S"true"\ntR.',
        b'(S"true"\niposix\nsystem\n.',
        b'(cposix\nsystem\nS"true"\no.',
        b'\x80\x02\x82\x01.',
        # A call of the result of getattr.
        b'cbuiltins\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\nVmean\ntR(I1\ntR.',
        b'\x80\x04\x8c\x05posix\x8c\x06system\x93.',
    ],
    ids=['REDUCE', 'INST', 'OBJ', 'EXT1', 'a method', 'STACK_GLOBAL'],
)
def test_every_pickle_opcode_that_names_a_function_is_checked(pickled):
    with pytest.raises(checkpoint_load.UnsafeCheckpointError):
        unpickler.Unpickler(io.BytesIO(pickled)).load()


def test_a_config_that_resuming_would_run_is_dropped(checkpoint, content):
    """Runner.resume executes ``meta['config']``; MMEngine's own files have ``meta['cfg']``."""
    content['meta'].update(config='raise SystemExit', cfg='a = 1')
    torch.save(content, checkpoint)
    meta = read(checkpoint)['meta']
    assert 'config' not in meta and meta['cfg'] == 'a = 1'


class Program(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')
def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / 'program.pth'
    torch.jit.save(torch.jit.trace(Program(), torch.ones(1)), str(path))
    with pytest.raises(pickle.UnpicklingError, match=r'program\.pth asks for a TorchScript'):
        read(path)


def test_a_tar_archive_is_refused(tmp_path):
    path = tmp_path / 'old.tar'
    with tarfile.open(path, 'w') as archive:
        archive.addfile(tarfile.TarInfo('storages'), io.BytesIO())
    with pytest.raises(pickle.UnpicklingError, match=r'old\.tar asks for a tar archive'):
        read(path)


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path):
    path = tmp_path / 'bad.pth'
    arguments = (torch.ones(2).storage(), 0, (1000,), (1,), False, OrderedDict())
    torch.save(dict(a=Call(torch._utils._rebuild_tensor_v2, *arguments)), path)
    with pytest.raises(pickle.UnpicklingError, match='exceeds its storage'):
        read(path)


@pytest.mark.parametrize('opened', [False, True])
def test_a_storage_cannot_reach_beyond_its_record(tmp_path, opened):
    whole, path = tmp_path / 'whole.pth', tmp_path / 'bad.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(1000))), whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, 'w') as target:
        for item in source.namelist():
            data = source.read(item)
            target.writestr(item, data[:4] if item.endswith('data/0') else data)
    with pytest.raises(pickle.UnpicklingError, match='1000 elements has 4 bytes'):
        checkpoint_load.load(io.BytesIO(path.read_bytes()) if opened else str(path))
    assert checkpoint_load.load(io.BytesIO(whole.read_bytes()))['state_dict']['weight'].sum() == 1e3


def test_a_file_can_be_trusted_by_name_and_the_log_says_so(tmp_path, monkeypatch, caplog):
    trusted, other = tmp_path / 'mine.pth', tmp_path / 'other.pth'
    for path in (trusted, other):
        torch.save(dict(state_dict=dict(weight=torch.ones(1)), made_at=Path('here')), path)
    monkeypatch.setenv('RTM_KD_TRUST', f'{tmp_path / "no.pth"}{os.pathsep}{trusted}')
    logger = MMLogger.get_instance('test_trust')
    logger.addHandler(caplog.handler)

    assert read(trusted)['made_at'] == Path('here')
    assert any(
        'mine.pth' in record.message and 'may run any code' in record.message
        for record in caplog.records
        if record.levelno == logging.WARNING
    )
    with pytest.raises(pickle.UnpicklingError, match='RTM_KD_TRUST='):
        read(other)


def test_a_download_is_checked_against_the_hash_in_its_name(checkpoint, tmp_path, content):
    data = checkpoint.read_bytes()
    folder = tmp_path / 'cache'
    good = tmp_path / f'model-{hashlib.sha256(data).hexdigest()[:8]}.pth'
    bad = tmp_path / 'model-0a8c901a.pth'
    for path in (good, bad):
        path.write_bytes(data)

    check(checkpoint_load.load_url(good.as_uri(), model_dir=str(folder), progress=False), content)
    with pytest.raises(pickle.UnpicklingError, match=r'begins with .* its name says 0a8c901a'):
        checkpoint_load.load_url(bad.as_uri(), model_dir=str(folder), progress=False)
    # Also if it is already in the cache.
    (folder / good.name).write_bytes(data[:-1])
    with pytest.raises(pickle.UnpicklingError, match='damaged'):
        checkpoint_load.load_url(good.as_uri(), model_dir=str(folder), progress=False)


@pytest.mark.parametrize(
    'data', [b'<!DOCTYPE html><title>Sign in</title>', b'', b'PK\x03\x04cut off', 'half']
)
def test_a_download_that_is_not_a_checkpoint_names_the_cached_file(checkpoint, tmp_path, data):
    whole = checkpoint.read_bytes()
    url = (tmp_path / 'best.pth').as_uri()
    (tmp_path / 'best.pth').write_bytes(whole[: len(whole) // 2] if data == 'half' else data)
    for _ in range(2):  # downloaded, then found in the cache
        with pytest.raises(pickle.UnpicklingError) as refused:
            checkpoint_load.load_url(url, model_dir=str(tmp_path / 'cache'), progress=False)
        (cached,) = (tmp_path / 'cache').rglob('*.pth')
        assert re.search(
            f'^{cached} .*; it was downloaded from {url}: delete the file and download it again$',
            str(refused.value),
        )
        assert ('a web page' in str(refused.value)) == (data[:1] == b'<')
    cached.unlink()
    (tmp_path / 'best.pth').write_bytes(whole)
    checkpoint_load.load_url(url, model_dir=str(tmp_path / 'cache'), progress=False)


def test_two_downloads_of_one_name_are_told_apart(tmp_path):
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        torch.save(dict(state_dict=dict(w=torch.ones(number))), tmp_path / f'{number}/best.pth')
    for number in (1, 2, 1):
        url = (tmp_path / f'{number}/best.pth').as_uri()
        content = checkpoint_load.load_url(url, model_dir=str(tmp_path / 'cache'), progress=False)
        assert len(content['state_dict']['w']) == number


@pytest.mark.parametrize('number', [None, False, True])
def test_a_later_mmengine_passes_weights_only(checkpoint, content, number):
    check(checkpoint_load.load(str(checkpoint), map_location='cpu', weights_only=number), content)


def pickled(*parts):
    return b'\x80\x04' + b''.join(parts) + b'.'


def text(value):
    return b'X' + len(value).to_bytes(4, 'little') + value.encode()


def name(module, function):
    return text(module) + text(function) + b'\x93'


def scalar(dtype, data):
    return name('numpy._core.multiarray', 'scalar') + dtype + data + b'\x86R'


def dtype(name_):
    return name('numpy', 'dtype') + text(name_) + b'\x89\x88\x87R'


RECONSTRUCT = (
    name('numpy._core.multiarray', '_reconstruct')
    + name('numpy', 'ndarray')
    + b'K\x00\x85C\x01b\x87R'
)
SIXTEEN = scalar(dtype('u1'), b'C\x01\x10')
DEEP = b'N' + b'\x85' * 100_000
WIDE = b'N' + b'\x85' + b'2\x86' * 60  # 2 x 2 x 2 ...
TENSOR = (
    name('torch._utils', '_rebuild_tensor_v2')
    + b'('
    + b'('
    + text('storage')
    + name('torch', 'FloatStorage')
    + text('0')
    + text('cpu')
    + b'K\x06tQ'
)
OTHER_TENSOR = TENSOR.replace(text('FloatStorage'), text('DoubleStorage'))[:-4] + b'K\x03tQ'
EXPANDED = TENSOR + b'K\x00J\x00\x00\x00\x10\x85K\x00\x85\x89}t' + b'R'


def array(shape, kind=b'', data=b'', dtype_=None):
    return RECONSTRUCT + b'(K\x01' + shape + (dtype_ or dtype('O8')) + b'\x89' + data + b'tb'


BAD = {
    # numpy's product overflows: 16 x 16 is 0 in eight bits.
    'numbers of numpy as a shape': (array(SIXTEEN * 2 + b'\x86', data=b']'), 'not of its size'),
    'a negative shape': (array(b'J\xff\xff\xff\xff\x85', data=b']'), 'not of its size'),
    'two negative sides': (
        array(b'J\xff\xff\xff\xff' * 2 + b'\x86', data=b']Na'),
        'not of its size',
    ),
    'sizes whose product wraps': (
        array(b'\x8a\x05\x00\x00\x00\x00\x01' * 2 + b'\x86', data=b']'),
        'not of its size',
    ),
    'a shape of truth values': (array(b'\x88\x85', data=b']Na'), 'not of its size'),
    'a list as a shape': (array(b']', data=b']Na'), 'not of its size'),
    'more objects than there are': (array(b'K\x02\x85', data=b']Na'), 'not of its size'),
    'text as data': (array(b'K\x01\x85', data=text('a')), 'not of its size'),
    'fewer bytes': (array(b'K\x02\x85', data=b'C\x01a', dtype_=dtype('u1')), 'not of its size'),
    'no dtype': (array(b'K\x01\x85', data=b'C\x01a', dtype_=b'N'), 'not of its size'),
    'arrays in arrays': (array(b'K\x01\x85', data=b']' + array(b')', data=b']Na') + b'a'), 'other'),
    'a number of a tensor as a size': (
        TENSOR + SIXTEEN + b'K\x01\x85K\x01\x85\x89}tR',
        'tensor of',
    ),
    'a negative offset': (TENSOR + b'J\xff\xff\xff\xffK\x01\x85K\x01\x85\x89}tR', 'a tensor of'),
    'numbers of numpy as a size': (
        # Of one element, which is repeated.
        TENSOR + b'K\x00' + SIXTEEN * 2 + b'\x86K\x00K\x00\x86\x89}tR',
        'a tensor of',
    ),
    'numbers of numpy as a stride': (
        TENSOR + b'K\x00K\x01\x85' + SIXTEEN + b'\x85\x89}tR',
        'a tensor of',
    ),
    'an expanded tensor': (EXPANDED, 'repeats its storage'),
    'a stride too few': (TENSOR + b'K\x00K\x01K\x02\x86K\x01\x85\x89}tR', 'exceeds its storage'),
    'a deep key': (b'}' + DEEP + b'Ns', 'as a key'),
    'a deep key of protocol 0': (b'(' + DEEP + b'Nd', 'as a key'),
    'keys in a row': (b'}(' + DEEP + b'Nu', 'as a key'),
    'a deep member': (b'\x8f(' + DEEP + b'\x90', 'as a key'),
    'a deep member of a frozenset': (b'(' + DEEP + b'\x91', 'as a key'),
    'a deep member of a set of protocol 2': (
        name('builtins', 'set') + b']' + DEEP + b'a\x85R',
        'as a key',
    ),
    'a deep key of an OrderedDict': (
        name('collections', 'OrderedDict') + b'](' + DEEP + b'N\x86e\x85R',
        'OrderedDict|as a key',
    ),
    'a tuple with a hash of 2^60 steps': (b'}' + WIDE + b'Ns', 'as a key'),
    'more values than bytes': (WIDE, 'more values'),
    'values in values': (b']' * 200 + b'a' * 199, '100 deep'),
    'a list in itself': (b']q\x00h\x00a', '100 deep'),
    'a bytearray of 3 GB': (
        b'\x96' + (3 << 30).to_bytes(8, 'little') + b'a',
        'old pickle|no place',
    ),
    'a dtype of 2 GB': (dtype('S2000000000'), 'the dtype'),
    'a number without data': (
        name('numpy._core.multiarray', 'scalar') + dtype('S90000') + b'\x85R',
        'missing 1 required',
    ),
    'a number of fewer bytes': (scalar(dtype('f8'), b'C\x01a'), 'not of its size'),
    'an object as a number': (scalar(dtype('O8'), b'C\x08' + b'A' * 8), 'a number of'),
    'a number of numpy as a count': (
        # Times the four bytes of an element it wraps to the 24 bytes that there are.
        TENSOR.replace(b'K\x06tQ', scalar(dtype('u1'), b'C\x01\x46') + b'tQ'),
        'the storage',
    ),
    'a record': (dtype('i8,O'), 'the dtype'),
    'a dtype of bytes without a type': (dtype('V8'), 'the dtype'),
    'a dtype of dates': (dtype('M8'), 'the dtype'),
    'a set of a tensor': (
        name('builtins', 'set') + TENSOR + b'K\x00K\x01\x85K\x01\x85\x89}tR\x85R',
        'a set of',
    ),
    'a Size of a tensor': (name('torch', 'Size') + b'V1\n\x85R', 'a torch.Size'),
    'members of a tensor': (TENSOR + b'K\x00K\x01\x85K\x01\x85\x89}tR(K\x01\x90', 'items of'),
    'items of a tensor': (TENSOR + b'K\x00K\x01\x85K\x01\x85\x89}tRK\x00K\x01s', 'items of'),
    'an array with members': (array(b')', data=b']Na') + b'(K\x01e', 'items of'),
    'a number of many digits': (b'I' + b'1' * 100_000 + b'\n', 'digits'),
    'a long number of many digits': (b'L0x' + b'1' * 100_000 + b'L\n', 'digits'),
    'a number of many bytes': (b'\x8b\x00\x00\x10\x00' + b'1' * 2**20, 'no place'),
    'an object of any class': (
        name('copyreg', '_reconstructor') + name('builtins', 'object') * 2 + b'N\x87R',
        '_reconstructor of object',
    ),
    'a base of any class': (
        name('copyreg', '_reconstructor')
        + name('mmengine.logging.history_buffer', 'HistoryBuffer')
        + name('numpy', 'ndarray')
        + b'N\x87R',
        '_reconstructor',
    ),
    'an object with keywords': (
        name('mmengine.logging.history_buffer', 'HistoryBuffer') + b')}\x92',
        'old pickle protocol',
    ),
    'text decoded again and again': (
        name('_codecs', 'encode')
        + b'0'
        + text('a' * 2**16)
        + b'q\x000'
        + (name('_codecs', 'encode') + b'h\x00' + text('latin1') + b'\x86R') * 64,
        'takes more than',
    ),
    'another storage of its name': (TENSOR + OTHER_TENSOR, 'two storages'),
    'a name of two lines': (
        text('os\nerror: 1') + text('a' * 5000) + b'\x93',
        re.escape(r"'os\nerror"),
    ),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_file_that_would_crash_hang_or_exhaust_memory_is_refused_in_one_line(tmp_path, kind):
    program, reason = BAD[kind]
    path = tmp_path / 'bad.pth'
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('archive/data.pkl', pickled(program))
        file.writestr('archive/version', '3\n')
        file.writestr('archive/byteorder', 'little')
        file.writestr('archive/data/0', bytes(24))
    with pytest.raises(pickle.UnpicklingError, match=rf'bad\.pth .*({reason})') as caught:
        checkpoint_load.load(str(path), map_location='cpu')
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 1000


def test_compressed_or_overlapping_records_are_refused(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / 'bad.pth'
    with zipfile.ZipFile(checkpoint) as source:
        records = {item: source.read(item) for item in source.namelist()}
    folder = next(iter(records)).split('/')[0]
    for grown in ('data.pkl', 'byteorder', 'data/0', '.data/of no use'):
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as target:
            for item, data in {**records, f'{folder}/{grown}': bytes(2**20)}.items():
                target.writestr(item, data)
        with pytest.raises(pickle.UnpicklingError, match='take more than its size'):
            checkpoint_load.load(str(path))
    monkeypatch.setattr(checkpoint_load, '_MOST_RECORDS', 3)
    with pytest.raises(pickle.UnpicklingError, match='records take more'):
        checkpoint_load.load(str(checkpoint))


def old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_an_old_file_without_the_content_of_a_storage_shows_no_memory(tmp_path):
    path = tmp_path / 'old.pth'
    data = old(dict(state_dict=dict(weight=torch.ones(4))), path)
    content = (4).to_bytes(8, 'little') + torch.ones(4).numpy().tobytes()
    assert data.endswith(content)
    (key,) = checkpoint_keys(data)
    keys = b'\x80\x02]q\x00X' + len(key).to_bytes(4, 'little') + key + b'q\x01a.'
    assert data.count(keys) == 1
    for changed in (
        data.replace(keys, b'\x80\x02].'),  # left out
        data.replace(keys, keys[:-2] + b'q\x01ah\x01a.'),
        data[: -len(content)] + (2**62 + 4).to_bytes(8, 'little') + content[8:],  # overflows
        data[:-1],
    ):
        path.write_bytes(changed)
        with pytest.raises(pickle.UnpicklingError, match='without their content'):
            checkpoint_load.load(str(path))
    path.write_bytes(data)
    assert checkpoint_load.load(str(path))['state_dict']['weight'].sum() == 4


def checkpoint_keys(data):
    """Keys of the storages that an old file names."""
    return {part.split(b'q')[0] for part in [data[data.rindex(b']q\x00X') + 8 :]]}


def test_only_the_header_of_a_tar_archive_is_read(tmp_path):
    path = tmp_path / 'old.tar'
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo('storages')
        info.pax_headers = dict(comment='a' * 5000)
        archive.addfile(info, io.BytesIO())
    path.write_bytes(path.read_bytes()[:600])  # without the content that the header announces
    with pytest.raises(pickle.UnpicklingError, match=r'old\.tar asks for a tar archive'):
        read(path)


def test_every_argument_of_a_function_that_a_file_may_call_is_checked():
    known = [each for each in vars(unpickler)['_KNOWN'].values() if hasattr(each, 'checks')]
    assert known
    for each in known:
        parameters = inspect.signature(each.function).parameters.values()
        assert list(each.checks) == [parameter.annotation for parameter in parameters]
