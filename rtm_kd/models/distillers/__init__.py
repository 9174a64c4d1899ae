from .configurable_distiller import ConfigurableDistiller
from .fpn_distiller import FpnDistiller, expand

__all__ = ['ConfigurableDistiller', 'FpnDistiller', 'expand']
