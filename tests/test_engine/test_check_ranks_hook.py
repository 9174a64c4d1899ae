"""Ranks of a distributed run that loaded different weights."""

import shutil

import pytest
import torch
from helpers import in_processes

from rtm_kd.apis.train import train


def begin(rank, config, options, distilled, machines):
    """Start a process that finds other files than the other rank; save its error."""
    messages = []
    for what in ('load_from', 'resume'):
        if what == 'load_from':
            options['load_from'] = str(distilled / f'epoch_{rank + 1}.pth')
        with pytest.raises(ValueError) as refused:
            train(
                config,
                work_dir=str(machines / str(rank)),
                resume='auto' if what == 'resume' else None,
                cfg_options=options,
                launcher='pytorch',
            )
        messages.append(str(refused.value))
    (machines / f'{rank}.txt').write_text('\n'.join(messages))


@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo is for machines without a GPU')
def test_ranks_that_loaded_different_checkpoints_do_not_start(
    kd_config, options, distilled, tmp_path
):
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    # Only rank 0 saves, and here the ranks do not share a disk.
    shutil.copy(distilled / 'epoch_2.pth', tmp_path / '0')
    in_processes(2, begin, kd_config, options, distilled, tmp_path)
    for rank in range(2):
        loaded, resumed = (tmp_path / f'{rank}.txt').read_text().split('\n')
        assert 'process 1 has other weights than process 0' in loaded
        assert 'architecture.backbone.stem.0.' in loaded
        assert (
            'process 1 is at epoch 0, iteration 0, and process 0 at epoch 2, iteration 6' in resumed
        )
