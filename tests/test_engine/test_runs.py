"""Several runs in one process."""

import shutil
import time

from rtm_kd.engine.runs import build_runner
from rtm_kd.utils import load_config


def test_runs_of_one_config_and_second_share_nothing(plain_config, options, tmp_path, monkeypatch):
    del options['teacher_ckpt']
    monkeypatch.setattr(time, 'strftime', lambda *_: '20260101_000000')
    runners = []
    for name in ('first', 'second'):
        cfg = load_config(plain_config, {**options, 'work_dir': str(tmp_path / name)})
        runners.append(build_runner(cfg))
        runners[-1].visualizer.add_scalar(name, 1)
        if name == 'first':
            # As after a run that could not start.
            shutil.rmtree(tmp_path / name)
    first, second = runners
    for part in ('logger', 'message_hub', 'visualizer', 'default_scope'):
        assert getattr(first, part) is not getattr(second, part)
    folder = tmp_path / 'second' / '20260101_000000'
    assert (folder / 'vis_data/scalars.json').read_text() == '{"second": 1, "step": 0}\n'
    assert (folder / '20260101_000000.log').is_file()
