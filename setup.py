import os
import re
import shutil
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# What may come from a package of another name: requirement -> module.
MODULES = {'mmcv-lite': 'mmcv', 'mmengine': 'mmengine', 'mmdet': 'mmdet'}
METAFILE = HERE / 'configs' / 'metafile.yml'
# They need the checkout around them.
NOT_PACKAGED = shutil.ignore_patterns(
    '__pycache__', '*.pth', 'quickstart.sh', 'run_tests.sh', 'soak.sh', 'benchmark*'
)


def requirements() -> list:
    lines = (HERE / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    lines = [line for line in lines if line and not line.startswith('#')]
    return [line for line in lines if not brought_by_another(line)]


def brought_by_another(requirement: str) -> bool:
    # The full mmcv and mmcv-lite put their files into one folder, and so do the forks of mmcv,
    # mmengine and mmdet with those: who has the one must not get the other on top of it. The
    # environment's folders are asked, not sys.path, which in pip's build holds the build's
    # requirements alone.
    name = re.match(r'[\w-]+', requirement)[0]
    module = MODULES.get(name)
    folders = [sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]
    names = {
        found.metadata['Name']
        for found in distributions(path=folders)
        if module and any(str(file) == f'{module}/__init__.py' for file in found.files or ())
    }
    return bool(names) and name not in names


def version() -> str:
    # Executed, not imported: the package itself needs what is not installed yet.
    names = {}
    exec((HERE / 'rtm_kd' / 'version.py').read_text(encoding='utf-8'), names)
    return names['__version__']


class BuildWithMim(build_py):
    """Puts configs and tools where MIM and ``rtm_kd::`` bases look for them: rtm_kd/.mim."""

    def run(self) -> None:
        super().run()
        package = HERE if self.editable_mode else Path(self.build_lib).resolve()
        mim = package / 'rtm_kd' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        (mim / 'configs' / 'rtmdet').mkdir(parents=True)
        # A link follows what is edited in the checkout; a wheel needs the files.
        put = os.symlink if self.editable_mode else copy
        for name in ('tools', 'model-index.yml'):
            put(HERE / name, mim / name)
        for path in (HERE / 'configs').iterdir():
            if path.suffix == '.py':
                # MMEngine wants a folder in `package::folder/config.py`, and MIM no second file
                # of the name.
                put(path, mim / 'configs' / 'rtmdet' / path.name)
            elif path.name != METAFILE.name:
                put(path, mim / 'configs' / path.name)
        metafile = METAFILE.read_text(encoding='utf-8')
        metafile = re.sub(
            '(?<=Config: )configs/(?=[^/]+$)', 'configs/rtmdet/', metafile, flags=re.M
        )
        (mim / 'configs' / METAFILE.name).write_text(metafile, encoding='utf-8')


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=NOT_PACKAGED)
    else:
        shutil.copyfile(source, target)


setup(
    name='rtm_kd',
    version=version(),
    description="Distilling RTMDet and its MMYOLO relatives on today's PyTorch",
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.9',
    packages=find_packages(include=['rtm_kd', 'rtm_kd.*']),
    package_data={'rtm_kd.reports': ['templates/*.html']},
    install_requires=requirements(),
    cmdclass={'build_py': BuildWithMim},
    extras_require={
        'export': ['onnx', 'onnxruntime'],
        'tests': ['hypothesis', 'onnx', 'onnxruntime', 'pytest', 'pytest-xdist', 'ruff'],
    },
)
