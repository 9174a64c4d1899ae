import os
import re
import socket
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, as_arguments


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo is for machines without a GPU')
def test_two_processes_train_across_the_detach_and_test(kd_config, options, tmp_path, port):
    environment = {
        **os.environ,
        'PYTHON': sys.executable,
        'PORT': str(port),
        'OMP_NUM_THREADS': '1',
    }
    arguments = ['--work-dir', str(tmp_path), '--cfg-options', *as_arguments(options)]

    def launch(script, *args):
        return subprocess.run(
            ['bash', str(ROOT / 'tools' / script), *args, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    trained = launch('dist_train.sh', kd_config, '2')
    output = trained.stdout + trained.stderr
    assert trained.returncode == 0, output[-3000:]
    assert 'Distributed training: True' in output and 'GPU number: 2' in output
    assert 'Epoch 3: distillation has ended' in output
    epochs = [int(n) for n in re.findall(r'Epoch\(train\) +\[(\d+)\].*distill\.loss', output)]
    assert set(epochs) == {1, 2}
    assert (tmp_path / 'epoch_3.pth').is_file()

    tested = launch('dist_test.sh', kd_config, str(tmp_path / 'epoch_3.pth'), '2')
    assert tested.returncode == 0, tested.stderr[-3000:]
    assert 'coco/bbox_mAP' in tested.stdout + tested.stderr
