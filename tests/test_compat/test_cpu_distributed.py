import datetime
import socket

import pytest
import torch
import torch.distributed as torch_dist
from mmengine.dist import init_dist

PROCESS = """
from pathlib import Path

import rtm_kd
import torch
import torch.distributed as torch_dist
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel
from torch import nn

init_dist('pytorch')
rank = torch_dist.get_rank()
model = nn.Linear(2, 1, bias=False)
# What Runner.wrap_model passes, on a machine with or without a GPU.
model = MMDistributedDataParallel(model, device_ids=[0], broadcast_buffers=False)
model(torch.full((1, 2), float(1 + 2 * rank))).sum().backward()
report = [torch_dist.get_backend(), model.module.weight.grad.tolist()]

# SyncBN, against BN on the whole batch: of four images one process has three.
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
images, aim = torch.randn(2, 4, 3, 5, 6) * 3 + 100
own = slice(0, 3) if rank else slice(3, 4)
for affine, tracked, momentum in ((True, True, 0.1), (True, True, None), (False, False, 0.1)):
    options = dict(affine=affine, track_running_stats=tracked, momentum=momentum)
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.SyncBatchNorm(3, **options))
    if affine:
        nn.init.normal_(model[1].weight)
    expected = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, **options))
    expected.load_state_dict(model.state_dict())
    synced = MMDistributedDataParallel(model, device_ids=[0], broadcast_buffers=False)
    for _ in range(2):
        synced.zero_grad(), expected.zero_grad()
        output, outputs = synced(images[own]), expected(images)
        torch.testing.assert_close(output, outputs[own])
        # Averaged over the processes, where the whole batch has a sum.
        (2 * output * aim[own, :, 1:-1, 1:-1]).sum().backward()
        (outputs * aim[:, :, 1:-1, 1:-1]).sum().backward()
    for mine, theirs in zip(synced.parameters(), expected.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(synced.buffers(), expected.buffers()):
        torch.testing.assert_close(mine, theirs)
    assert model[1](images[own].bfloat16()).dtype is torch.bfloat16
    synced.eval(), expected.eval()
    if tracked:
        # No process waits for the others in evaluation.
        expected.load_state_dict(synced.module.state_dict())
        torch.testing.assert_close(synced.module(images[:rank + 1]), expected(images[:rank + 1]))
report.append('synced')
# A process that ends before the threads of its group is aborted now and then (SIGABRT).
def threads():
    names = [Path(task, 'comm').read_text() for task in Path('/proc/self/task').iterdir()]
    return sum('gloo' in name for name in names)
report.append(threads() > 0)
destroyed = torch_dist.destroy_process_group
def told():
    destroyed()
    with open(f'rank{rank}.txt', 'a') as file:
        print('threads left:', threads(), file=file)
torch_dist.destroy_process_group = told
with open(f'rank{rank}.txt', 'w') as file:
    print(*report, file=file)
"""


def test_syncbn_of_two_cpu_processes_equals_batchnorm_on_one(run_python, tmp_path):
    (tmp_path / 'process.py').write_text(PROCESS)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]

    run_python(f"""
        from torch.distributed.run import main
        main(['--nproc_per_node=2', '--master_addr=127.0.0.1', '--master_port={port}',
              'process.py'])
    """)

    # The inputs of the linear model are 1 and 3.
    for rank in range(2):
        assert (tmp_path / f'rank{rank}.txt').read_text() == (
            'gloo [[2.0, 2.0]] synced True\nthreads left: 0\n'
        )


needs_cpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason='nothing is patched on a machine with CUDA'
)


@needs_cpu
def test_a_timeout_reaches_gloo(monkeypatch):
    got = {}
    monkeypatch.setattr(torch_dist, 'init_process_group', lambda **kwargs: got.update(kwargs))
    init_dist('pytorch', backend='nccl', timeout=60)
    assert got == dict(backend='gloo', timeout=datetime.timedelta(seconds=60))
