"""The table in CONTRIBUTING lists every module, and no import runs upward in it."""

import ast
import re
import subprocess
import sys

from helpers import ROOT

PACKAGE = ROOT / 'rtm_kd'


def rooms():
    """name -> floor, as CONTRIBUTING lists them."""
    text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    listed = re.findall(r'^\| (\d+) \| `rtm_kd/(\w+)(?:/|\.py)` \|', text, flags=re.M)
    return {name: int(floor) for floor, name in listed}


def imports():
    """Yield (place, importing module, imported name) for each import of rtm_kd's own modules."""
    for path in PACKAGE.rglob('*.py'):
        if '.mim' in path.parts:
            continue
        module = ['rtm_kd', *path.relative_to(PACKAGE).with_suffix('').parts]
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.ImportFrom):
                base = module[: -node.level] if node.level else []
                target = [*base, *(node.module.split('.') if node.module else [])]
                names = [[*target, alias.name] for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name.split('.') for alias in node.names]
            else:
                continue
            for name in names:
                if name[0] == 'rtm_kd' and len(name) > 1:
                    yield f'{path.relative_to(ROOT)}:{node.lineno}', module, name


def test_the_map_in_contributing_lists_every_module():
    there = {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.suffix == '.py' or (path / '__init__.py').is_file()) and path.stem != '__init__'
    }
    assert set(rooms()) == there


def test_no_import_runs_upward_or_across_a_floor():
    floors = rooms()
    upward = [
        f'{place}: {module[1]} (floor {floors[module[1]]}) imports {".".join(name)} '
        f'(floor {floors[name[1]]})'
        for place, module, name in imports()
        # rtm_kd/__init__.py may import everything: it loads the registered classes.
        if module[1] != '__init__' and module[1] != name[1] and name[1] in floors
        if floors[name[1]] >= floors[module[1]]
    ]
    assert not upward, '\n'.join(upward)


def test_modules_of_floor_0_import_no_other_module_of_ours():
    own = [
        f'{place}: {".".join(name)}'
        for place, module, name in imports()
        if module[1] == 'compat' and name[1] != 'compat'
    ]
    assert not own, '\n'.join(own)


def test_training_imports_nothing_that_only_other_tools_need():
    code = (
        'import sys\n'
        # MMDetection itself imports matplotlib, so that is not listed.
        'import rtm_kd, mmdet.datasets, mmdet.evaluation, mmdet.visualization\n'
        'before = {*sys.modules}\n'
        'from rtm_kd.apis.train import train\n'
        'loaded = {*sys.modules} - before\n'
        "unneeded = ('matplotlib', 'jinja2', 'onnx', 'onnxruntime', 'rtm_kd.comparison', "
        "'rtm_kd.deploy', 'rtm_kd.datasets.prepare', 'rtm_kd.datasets.converters.voc', "
        "'rtm_kd.datasets.converters.yolo', 'rtm_kd.reports.page')\n"
        'print([name for name in unneeded if name in loaded])\n'
    )
    found = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == '[]'
