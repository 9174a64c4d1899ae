"""Configs in which untrusted text stays text.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: MMEngine replaces ``{{ ... }}`` in the *text* of a config, quoted or not, before Python
reads it, and the default of ``{{$NAME:default}}`` is a regular expression and a template. So a
class name in a dumped config, or the folder's name that replaces ``{{ fileDirname }}``, may become
code.
Here: a dumped config writes ``{{`` with an escape, in Python, JSON and YAML, and the name of a
config's file or folder is inserted with escapes for what a string literal may not hold.
Can go: when MMEngine replaces values in the parsed config.
"""

import functools
import os
import re
from pathlib import Path
from typing import Any, Optional

import mmengine.config.config as mmengine_config
import yaml
from mmengine import fileio
from mmengine.config import Config
from mmengine.fileio.handlers import yaml_handler

from .mmengine_0_10 import applies as applies

_FILE_VARIABLE = re.compile(
    r'\{\{\s*(fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)\s*\}\}'
)
_NOT_IN_A_LITERAL = re.compile(r'[\'"\\{}\x00-\x1f]')


def inert(source: str) -> str:
    """Return Python source of the same values in which MMEngine replaces nothing.

    Args:
        source (str): Literals as ``repr`` writes them: ``{{`` is only in strings, and every
            backslash before it is escaped.
    """
    return source.replace('{{', r'{\x7b')


class _Dumper(yaml_handler.Dumper):
    """Puts text with ``{{`` into double quotes, the only place where YAML has escapes."""


def _represent_str(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if '{{' in text else None
    return dumper.represent_scalar('tag:yaml.org,2002:str', text, style=style)


_Dumper.add_representer(str, _represent_str)
# Format -> arguments of its writer.
_FORMATS = dict(json={}, yaml=dict(Dumper=_Dumper), yml=dict(Dumper=_Dumper))


def _dump(values: dict, file: Optional[str] = None, file_format: Optional[str] = None) -> Any:
    if file_format not in _FORMATS:
        return fileio.dump(values, file=file, file_format=file_format)
    text = fileio.dump(values, file_format=file_format, **_FORMATS[file_format])
    # In both formats it can only be in a string.
    text = text.replace('{{', r'{\u007b')
    return text if file is None else fileio.put_text(text, file)


def _substitute_predefined_vars(filename: str, temp_config_name: str) -> None:
    folder, name = os.path.split(filename)
    stem, suffix = os.path.splitext(name)
    values = dict(
        fileDirname=folder.replace('\\', '/') if os.sep == '\\' else folder,
        fileBasename=name,
        fileBasenameNoExtension=stem,
        fileExtname=suffix,
    )
    text = Path(filename).read_text(encoding='utf-8')
    text = _FILE_VARIABLE.sub(lambda match: _escaped(values[match[1]]), text)
    Path(temp_config_name).write_text(text, encoding='utf-8')


def _escaped(value: str) -> str:
    # Python, JSON and double-quoted YAML share this escape.
    return _NOT_IN_A_LITERAL.sub(lambda match: f'\\u{ord(match[0]):04x}', value)


def enable() -> None:
    Config._substitute_predefined_vars = staticmethod(_substitute_predefined_vars)
    mmengine_config.dump = _dump
    original = Config.pretty_text.fget

    @functools.wraps(original)
    def pretty_text(self: Config) -> str:
        return inert(original(self))

    Config.pretty_text = property(pretty_text)
