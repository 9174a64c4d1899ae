import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_python(tmp_path):
    """Run code in a new Python process, whose imports and their order matter.

    Returns its standard output; a failure shows its standard error.
    """

    def run(code: str, *options: str, executable: str = sys.executable, path: tuple = ()) -> str:
        env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
        env['PYTHONPATH'] = os.pathsep.join([str(ROOT), *path])
        done = subprocess.run(
            [executable, *options, '-c', textwrap.dedent(code)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
