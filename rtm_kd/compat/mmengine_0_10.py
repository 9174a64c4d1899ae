"""Whether MMEngine is of the releases that have the faults of these modules."""

import mmengine
from mmengine.utils import digit_version


def applies() -> bool:
    return digit_version(mmengine.__version__) < digit_version('0.11')
