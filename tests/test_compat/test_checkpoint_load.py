import hashlib
import io
import logging
import operator
import os
import pickle
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
from mmengine.runner.checkpoint import CheckpointLoader

from rtm_kd.compat import checkpoint_load


def read(path):
    """As everything of MMEngine reads a checkpoint: runner, hooks, init_cfg, inferencers."""
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


def test_a_file_of_torch_before_1_6_loads(content, tmp_path):
    torch.save(content, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    check(read(tmp_path / 'old.pth'), content)


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
    # Which would take the bytes of an array for the addresses of Python objects.
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

    # What the file would have done, had anything run it.
    torch.load(str(path), weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize(
    'pickled',
    [
        b'cposix\nsystem\n(S"true"\ntR.',
        b'(S"true"\niposix\nsystem\n.',
        b'(cposix\nsystem\nS"true"\no.',
        b'\x80\x02\x82\x01.',
        # A call of what getattr returned.
        b'cbuiltins\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\nVmean\ntR(I1\ntR.',
        b'\x80\x04\x8c\x05posix\x8c\x06system\x93.',
    ],
    ids=['REDUCE', 'INST', 'OBJ', 'EXT1', 'a method', 'STACK_GLOBAL'],
)
def test_every_way_of_pickle_to_name_a_function_is_closed(pickled):
    with pytest.raises(checkpoint_load.UnsafeCheckpointError):
        checkpoint_load.Unpickler(io.BytesIO(pickled)).load()


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
    # Also when it lies in the cache already.
    (folder / good.name).write_bytes(data[:-1])
    with pytest.raises(pickle.UnpicklingError, match='damaged'):
        checkpoint_load.load_url(good.as_uri(), model_dir=str(folder), progress=False)
