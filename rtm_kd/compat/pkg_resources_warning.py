"""No warning that pkg_resources is deprecated.

For: mmengine 0.10 with setuptools from 80.9 on.
Fault: MMEngine imports pkg_resources to ask what is installed, and reloads it: two warnings at the
start of every tool, about which a user can do nothing.
Here: a filter for these two. It is the last one, so that ``-W`` and any filter of a program come
first; an import of pkg_resources anywhere else still warns.
Can go: when MMEngine uses importlib.metadata.
"""

import warnings

import mmengine
from mmengine.utils import digit_version


def applies() -> bool:
    return digit_version(mmengine.__version__) < digit_version('0.11')


def enable() -> None:
    # The reload is an import by importlib.
    for module in (r'mmengine\.utils\.package_utils$', 'importlib$'):
        warnings.filterwarnings(
            'ignore', 'pkg_resources is deprecated as an API', UserWarning, module, append=True
        )
