"""Configs of this package as a base: ``_base_ = 'rtm_kd::rtmdet/...'``.

For: mmengine <= 0.10.7.
Fault: MMEngine reads ``package::config`` for a list of packages that it knows by name alone.
Here: this package is put on the list.
Can go: when MMEngine asks the package instead of a list.
"""

from mmengine.config.utils import MODULE2PACKAGE


def enable() -> None:
    MODULE2PACKAGE.setdefault('rtm_kd', 'rtm_kd')
