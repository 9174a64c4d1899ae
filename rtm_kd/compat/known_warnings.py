"""No warnings about calls that a user can't change.

For: mmengine 0.10 with setuptools from 80.9 on, mmdet 3 with torch from 2.4 on, mmyolo 0.6.
Fault: at its start MMEngine imports ``pkg_resources`` and reloads it, and then uses its own
deprecated FileClient and an argument of DDP that torch has renamed; MMDetection calls
``torch.cuda.amp.autocast`` in its attention layer and ``torch.meshgrid`` without ``indexing`` for
its priors; MMYOLO's recipes pin memory, on a machine without an accelerator too.
Here: a filter for each of these calls. They are the last ones, so that ``-W`` and any filter of a
program come first; an import of pkg_resources and an autocast anywhere else still warn. FileClient
logs nothing: all that it logs is that it is deprecated.
Can go: when MMEngine uses importlib.metadata and its own fileio functions, and MMEngine and
MMDetection torch's newer names.
"""

import re
import warnings

from mmengine.fileio import file_client

# Beginning of the message, category, and the module that the warning names.
_FILTERS = (
    ('pkg_resources is deprecated as an API', UserWarning, r'mmengine\.utils\.package_utils$'),
    # The reload is an import by importlib.
    ('pkg_resources is deprecated as an API', UserWarning, r'importlib$'),
    ('`torch.cuda.amp.autocast(args...)`', FutureWarning, r'mmdet\.models\.layers\.se_layer$'),
    ('`broadcast_buffers` is deprecated', FutureWarning, r'mmengine\.model\.wrappers\.'),
    # torch names itself, and not the caller.
    ('torch.meshgrid: in an upcoming release', UserWarning, r'torch\.functional$'),
    ("'pin_memory' argument is set as true but no accel", UserWarning, r'torch\.utils\.data\.'),
)


def applies() -> bool:
    # A filter changes nothing where its warning does not come.
    return True


def enable() -> None:
    for message, category, module in _FILTERS:
        warnings.filterwarnings('ignore', re.escape(message), category, module, append=True)
    file_client.print_log = lambda *args, **kwargs: None
