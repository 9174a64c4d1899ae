import socket

import pytest
import torch
from mmengine.model import MMDistributedDataParallel

from rtm_kd.compat import cpu_distributed

PROCESS = """
import rtm_kd
import torch
import torch.distributed as torch_dist
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel

init_dist('pytorch')
rank = torch_dist.get_rank()
model = torch.nn.Linear(2, 1, bias=False)
# What Runner.wrap_model passes, on a machine with or without a GPU.
model = MMDistributedDataParallel(model, device_ids=[0], broadcast_buffers=False)
model(torch.full((1, 2), float(1 + 2 * rank))).sum().backward()
with open(f'rank{rank}.txt', 'w') as file:
    print(torch_dist.get_backend(), model.module.weight.grad.tolist(), file=file)
torch_dist.destroy_process_group()
"""


def test_two_processes_on_the_cpu_share_their_gradients(run_python, tmp_path):
    (tmp_path / 'process.py').write_text(PROCESS)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]

    run_python(f"""
        from torch.distributed.run import main
        main(['--nproc_per_node=2', '--master_addr=127.0.0.1', '--master_port={port}',
              'process.py'])
    """)

    # The inputs are 1 and 3.
    for rank in range(2):
        assert (tmp_path / f'rank{rank}.txt').read_text() == 'gloo [[2.0, 2.0]]\n'


@pytest.mark.skipif(torch.cuda.is_available(), reason='nothing is changed where there is CUDA')
def test_enabling_again_wraps_nothing():
    before = MMDistributedDataParallel.__init__

    cpu_distributed.enable()

    assert MMDistributedDataParallel.__init__ is before
