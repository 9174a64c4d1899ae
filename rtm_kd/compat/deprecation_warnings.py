"""No deprecation warnings about calls that a user can't change.

For: mmengine 0.10 with setuptools from 80.9 on, and mmdet 3 with torch from 2.4 on.
Fault: at its start MMEngine imports ``pkg_resources`` and reloads it, two warnings; MMDetection
calls ``torch.cuda.amp.autocast`` in its attention layer and ``torch.meshgrid`` without
``indexing`` for its priors.
Here: a filter for each of these calls. They are the last ones, so that ``-W`` and any filter of a
program come first; an import of pkg_resources and an autocast anywhere else still warn.
Can go: when MMEngine uses importlib.metadata, and MMDetection torch's newer names.
"""

import re
import warnings

# Beginning of the message, category, and the module that the warning names.
_FILTERS = (
    ('pkg_resources is deprecated as an API', UserWarning, r'mmengine\.utils\.package_utils$'),
    # The reload is an import by importlib.
    ('pkg_resources is deprecated as an API', UserWarning, r'importlib$'),
    ('`torch.cuda.amp.autocast(args...)`', FutureWarning, r'mmdet\.models\.layers\.se_layer$'),
    # torch names itself, and not the caller.
    ('torch.meshgrid: in an upcoming release', UserWarning, r'torch\.functional$'),
)


def applies() -> bool:
    # A filter changes nothing where its warning does not come.
    return True


def enable() -> None:
    for message, category, module in _FILTERS:
        warnings.filterwarnings('ignore', re.escape(message), category, module, append=True)
