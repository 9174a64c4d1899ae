import operator
import os
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import CheckpointLoader

from rtm_kd.compat import torch_load

weights_only = pytest.mark.skipif(
    tuple(int(n) for n in torch.__version__.split('.')[:2]) < (2, 6),
    reason='torch.load of this version executes whatever a file says',
)


@pytest.fixture
def checkpoint(tmp_path):
    hub = MessageHub('test_torch_load')
    for loss in (3.0, np.float64(2.0), np.float32(1.0)):
        hub.update_scalar('train/loss', loss)
    hub.update_info('epoch', np.int64(7))
    path = tmp_path / 'epoch_7.pth'
    torch.save(
        dict(
            meta=dict(epoch=7, seed=np.int64(3)),
            state_dict=dict(weight=torch.arange(3.0)),
            message_hub=hub.state_dict(),
        ),
        path,
    )
    return path


def check_content(content: dict) -> None:
    assert content['state_dict']['weight'].tolist() == [0, 1, 2]
    assert content['meta']['seed'] == 3
    assert content['message_hub']['runtime_info']['epoch'] == 7
    history = content['message_hub']['log_scalars']['train/loss']
    assert history.mean(2) == 1.5
    assert history.statistics('max') == 3.0


@pytest.mark.parametrize('load', [torch.load, CheckpointLoader.load_checkpoint])
def test_a_checkpoint_with_its_message_hub_loads(checkpoint, load):
    check_content(load(str(checkpoint), map_location='cpu'))


@pytest.mark.parametrize('name', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
@pytest.mark.filterwarnings('ignore:numpy.core:DeprecationWarning')
def test_files_of_numpy_1_and_numpy_2_load(checkpoint, tmp_path, name):
    path = tmp_path / 'other_numpy.pth'
    renamed = 0
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(path, 'w') as target:
        for item in source.namelist():
            content = source.read(item)
            if item.endswith('data.pkl'):
                content = content.replace(b'numpy._core.', b'numpy.core.')
                content = content.replace(b'numpy.core.multiarray', name)
                renamed = content.count(name)
            target.writestr(item, content)
    assert renamed

    check_content(torch.load(str(path)))


class Call:
    """Pickled as a call of a function, which plain unpickling would execute."""

    def __init__(self, function, *args) -> None:
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@weights_only
@pytest.mark.parametrize(
    'call',
    [
        Call(getattr, 'text', 'join'),
        Call(getattr, HistoryBuffer, '__init__'),
        Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'),
    ],
    ids=['of a string', 'not a statistic', 'of a statistic'],
)
def test_getattr_reaches_nothing_else(tmp_path, call):
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict=call), path)

    with pytest.raises(ValueError, match='refused'):
        CheckpointLoader.load_checkpoint(str(path))


@weights_only
@pytest.mark.parametrize('load', [torch.load, CheckpointLoader.load_checkpoint])
def test_a_file_that_calls_a_program_is_refused_and_calls_nothing(tmp_path, load):
    path, trace = tmp_path / 'bad.pth', tmp_path / 'trace'
    torch.save(dict(state_dict=Call(os.system, f'touch "{trace}"')), path)

    with pytest.raises(Exception, match='system'):
        load(str(path))
    assert not trace.exists()

    # What the file would have done, had anything run it.
    torch.load(str(path), weights_only=False)
    assert trace.exists()


@weights_only
def test_enabling_again_adds_nothing():
    before = len(torch.serialization.get_safe_globals())

    torch_load.enable()

    assert len(torch.serialization.get_safe_globals()) == before


def test_a_function_that_is_not_named_stays_unknown(tmp_path):
    path = tmp_path / 'bad.pth'
    torch.save(Call(operator.add, 1, 2), path)

    with pytest.raises(Exception, match='add'):
        torch.load(str(path), weights_only=True)
