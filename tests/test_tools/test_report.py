import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from helpers import tool
from mmengine.config import Config

from rtm_kd.apis.report import report
from rtm_kd.models.algorithms.detector import build_detector, resolve_model_cfg
from rtm_kd.utils import UsageError
from rtm_kd.utils.checkpoint import read_checkpoint, student_state_dict

# A name that would run a script if the page did not escape it.
ODD = '<img src=x onerror=alert(1)> & "co"'
LEVELS = ('fpn0', 'fpn1', 'fpn2')


def change_config(work_dir, **changes):
    path = next(work_dir.glob('*/vis_data/config.py'))
    cfg = Config.fromfile(str(path))
    cfg.merge_from_dict(changes)
    cfg.dump(str(path))


def change_log(work_dir, change):
    path = next(work_dir.glob('*/vis_data/scalars.json'))
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines if line))


@pytest.fixture
def copy(distilled, tmp_path):
    """Copy the work dir of the fixture ``distilled``, with links to its checkpoints."""

    def copy(name):
        return _copy(distilled, tmp_path / name)

    return copy


def _copy(source, target, **options):
    shutil.copytree(source, target, ignore=shutil.ignore_patterns('*.pth'), **options)
    for path in source.glob('*.pth'):
        (target / path.name).symlink_to(path)
    # The fixture's run has no evaluation.
    log = next(target.glob('*/vis_data/scalars.json'))
    with log.open('a') as file:
        file.write('{"coco/bbox_mAP": 0.125, "coco/bbox_mAP_50": 0.25, "step": 3}\n')
    return target


@pytest.fixture(scope='module')
def finished(distilled, tmp_path_factory):
    """A distillation with a teacher's checkpoint, and its student without a teacher."""
    root = tmp_path_factory.mktemp('finished')
    student = _copy(distilled, root / ODD)
    cfg = Config.fromfile(str(next(student.glob('*/vis_data/config.py'))))
    teacher = dict(cfg_path=cfg.model.teacher, num_classes=2)
    weights = build_detector(teacher, 'teacher').state_dict()
    torch.save(dict(state_dict=weights), root / 'teacher.pth')
    change_config(
        student,
        **{
            'model.teacher': dict(teacher, _delete_=True),
            'model.teacher_ckpt': str(root / 'teacher.pth'),
        },
    )

    plain = _copy(distilled, root / 'plain')
    for path in plain.glob('*.pth'):
        path.unlink()
    weights = student_state_dict(read_checkpoint(str(distilled / 'epoch_3.pth'))['state_dict'])
    torch.save(dict(state_dict=weights), plain / 'epoch_3.pth')
    cfg.model = resolve_model_cfg(cfg.model.architecture, 'architecture')
    cfg.custom_hooks = cfg.custom_hooks[:2]
    cfg.dump(str(next(plain.glob('*/vis_data/config.py'))))
    change_log(
        plain,
        lambda line: {
            name.replace('student.', ''): value
            for name, value in line.items()
            if not name.startswith('distill.')
        },
    )
    return student, plain


@pytest.fixture(scope='module')
def page(finished):
    """The report of both runs, written by the command line tool."""
    student, plain = finished
    run = tool('analysis_tools/report.py', student, '--plain', plain, '--images', 1)
    path = student / 'report.html'
    assert (run.returncode, run.stdout, run.stderr) == (0, f'report written to {path}\n', '')
    return path


class Elements(HTMLParser):
    """Collects a page's elements as (tag, attributes), and its text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text = [], ''
        self.feed(Path(path).read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def attributes(self, tag, name):
        return [
            attributes[name] for t, attributes in self.elements if t == tag and name in attributes
        ]


def notes(path):
    found = re.search('<ul class="notes">(.*?)</ul>', Path(path).read_text(), re.DOTALL)
    return re.findall('<li>(.*)</li>', found[1]) if found else []


def test_has_every_curve_and_picture(page):
    elements = Elements(page)
    curves = [label for label in elements.attributes('svg', 'aria-label') if ' of student' in label]
    names = [
        'coco/bbox_mAP',
        'loss_cls',
        'loss_bbox',
        *(f'distill.loss_pkd_{n}' for n in LEVELS),
        'lr',
    ]
    assert curves == [f'{name} of student, plain student' for name in names]
    assert elements.text.count('teacher detached, pipeline switch') == len(names)

    maps = elements.attributes('img', 'alt')
    models = ('teacher', 'student, before', 'student', 'plain student')
    assert [alt.split(' on ')[0] for alt in maps] == [
        f'attention of {model} at {level}' for level in LEVELS for model in models
    ]
    found = [label.split(' on ')[0] for label in elements.attributes('svg', 'aria-label')]
    assert found[-4:] == ['ground truth', 'student', 'plain student', 'teacher']
    for text in ('best val mAP 0.125', 'ChannelWiseDivergence', 'disc', 'PyTorch', '0.25'):
        assert text in elements.text
    assert notes(page) == []


def test_needs_nothing_but_itself(page):
    elements = Elements(page)
    assert not [
        tag for tag, _ in elements.elements if tag in ('script', 'link', 'iframe', 'object')
    ]
    addresses = [
        address
        for tag in ('img', 'image', 'use', 'a')
        for name in ('src', 'href')
        for address in elements.attributes(tag, name)
    ]
    assert addresses and all(address.startswith(('data:image/', '#')) for address in addresses)


def test_equal_weights_give_equal_attention_pictures(page):
    # Both load the same checkpoint here, so their pictures must be equal.
    row = re.search(r'<tr><th scope="row">fpn0</th>(.*?)</tr>', page.read_text())[1]
    before, student, plain = re.findall(r'>([-\d.]*)</td>', row)
    assert student == plain != before


def browser():
    names = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
    return next(filter(None, map(shutil.which, names)), None)


@pytest.mark.skipif(browser() is None, reason='no Chromium here')
def test_the_page_fits_desktop_and_phone_width_in_a_browser(page, tmp_path):
    shutil.copy(page, tmp_path / 'page.html')
    # A deliberate error shows that the console is read.
    policy = re.search('<meta http-equiv=[^>]*>', page.read_text())[0]
    (tmp_path / 'broken.html').write_text(f'{policy}<img src="http://127.0.0.1:9/missing.png">')
    (tmp_path / 'frames.html').write_text("""
<iframe src="page.html" width="1280" height="3000"></iframe>
<iframe src="page.html" width="390" height="3000"></iframe>
<iframe src="broken.html"></iframe>
<pre id="found"></pre>
<script>
onload = () => {
  const found = [...document.querySelectorAll('iframe')].slice(0, 2).map(frame => {
    const page = frame.contentDocument, all = [...page.querySelectorAll('body *')];
    const shown = all.filter(e => e.matches('img, figure svg') && e.checkVisibility());
    return {
      width: page.documentElement.scrollWidth,
      pictures: shown.length,
      broken: shown.filter(e => e.tagName == 'IMG' && !e.naturalWidth).length,
      empty: shown.filter(e => e.getBoundingClientRect().height < 20).length,
      wide: all.filter(e => e.getBoundingClientRect().right > frame.clientWidth + 1)
        .map(e => e.outerHTML.slice(0, 80)),
    };
  });
  document.getElementById('found').textContent = JSON.stringify(found);
};
</script>""")
    options = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
        --disable-background-networking --disable-component-update --hide-scrollbars
        --allow-file-access-from-files --enable-logging=stderr --virtual-time-budget=9000"""
    run = subprocess.run(
        [browser(), *options.split(), f'--user-data-dir={tmp_path / "profile"}', '--dump-dom']
        + [(tmp_path / 'frames.html').as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    console = [line for line in run.stderr.splitlines() if ':CONSOLE' in line]
    assert console and not [line for line in console if 'broken.html' not in line]
    found = json.loads(re.search('<pre id="found">(.*)</pre>', run.stdout)[1].replace('&lt;', '<'))
    for frame, width in zip(found, (1280, 390)):
        assert frame['width'] <= width and frame['wide'] == []
        assert frame['pictures'] == 7 + 12 + 4
        assert frame['broken'] == frame['empty'] == 0


def test_several_runs_are_shown_side_by_side(finished, copy, tmp_path):
    student, plain = finished
    other = copy('other')
    change_log(other, lambda line: line | {'loss': float('nan')} if line['step'] == 4 else line)
    out = report(
        [str(student), str(other), str(plain)], str(tmp_path / 'a' / 'page.html'), images=0
    )
    elements = Elements(out)
    assert f'lr of {ODD}, other, plain' in elements.attributes('svg', 'aria-label')
    assert f'Best val mAP: {ODD} 0.125, other 0.125, plain 0.125' in elements.text
    assert notes(out) == ['other: NaN or Inf, first at epoch 1.333: loss.']


def test_missing_files_are_reported_and_the_curves_still_shown(copy, data_root):
    moved = copy('moved')
    change_config(moved, **{'model.teacher_ckpt': '/nowhere/teacher.pth'})
    out = report([str(moved)], images=1)
    assert notes(out) == [
        'There are no pictures of the teacher: there is no checkpoint file /nowhere/teacher.pth.'
    ]
    titles = {alt.split(' at ')[0] for alt in Elements(out).attributes('img', 'alt')}
    assert titles == {'attention of student', 'attention of student, before'}

    data = Path(shutil.copytree(data_root, moved / 'data'))
    (data / 'images' / '7.png').unlink()
    change_config(moved, **{'val_dataloader.dataset.data_root': f'{data}/'})
    out = report([str(moved)], images=1)
    assert notes(out)[-1].startswith('1 of 12 validation images are missing, ')
    assert Elements(out).attributes('img', 'alt')

    change_config(moved, **{'val_dataloader.dataset.data_root': '/nowhere/data/'})
    assert 'there is no data_root /nowhere/data/' in notes(report([str(moved)]))[0]
    assert not Elements(moved / 'report.html').attributes('img', 'alt')
    assert 'lr of student' in (moved / 'report.html').read_text()


def test_a_run_that_died_in_its_first_epoch_has_a_page(copy):
    died = copy('died')
    for path in [*died.glob('*.pth'), died / 'last_checkpoint']:
        path.unlink()
    change_log(died, lambda line: line if line['step'] < 3 and 'loss' in line else None)
    log = next(died.glob('*/*.log'))
    log.write_text(re.split(r'.*Epoch\(train\) +\[1\]\[3/3\]', log.read_text())[0])
    out = report([str(died)], images=1)
    assert 'student: not evaluated yet, epoch 0.6667 of 3' in Elements(out).text
    assert 'has no checkpoint yet' in notes(out)[0]


@pytest.mark.parametrize(
    'work_dirs, options, message',
    [
        (['missing'], {}, 'there is no work dir missing'),
        (['.'], {}, 'is not the work dir of a training'),
        (['run', 'run'], {}, 'the work dir run is given twice'),
        (['run'], dict(plain='.'), 'is not the work dir of a training'),
        (['run'], dict(out='run'), 'run is a folder; give the name of a file'),
        (['run'], dict(out='file/page.html'), "the page file/page.html can't be written"),
        (['run'], dict(images=-1), 'the number of images must be 0 or more, got -1'),
        (['run'], dict(device='tpu9'), '--device tpu9'),
    ],
)
def test_user_errors_are_one_sentence(copy, tmp_path, monkeypatch, work_dirs, options, message):
    copy('run')
    (tmp_path / 'file').touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(message)):
        report(work_dirs, **options)
    assert not (tmp_path / 'run' / 'report.html').exists()
