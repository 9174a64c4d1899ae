"""No fix: whether MMEngine has the faults that several modules beside this one fix."""

import mmengine
from mmengine.utils import digit_version


def applies() -> bool:
    return digit_version(mmengine.__version__) < digit_version('0.11')
