"""Drawings that read files, hang or crash the renderer are refused, and so is nothing else."""

import base64
import gzip
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap

import numpy as np
import psutil
import pytest
import resvg_py
from PIL import Image

from rib.base.errors import UserError
from rib.data import svg
from rib.data.images import decode
from rib.data.layouts.iconify import render
from tiny.data.photos import prepare_job, tar
from tiny.tiers import examples

RECT = '<rect width="9" height="9"/>'


def drawn(body, size=48):
    with svg.renderer() as draw:
        return render(draw, {"icons": {"ant": {"body": body}}}, "ant", size, 0.1, "set")


def picture(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, kind)
    return buffer.getvalue()


def data_url(data, kind):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image(href, name="href"):
    return f'<image width="9" height="9" {name}="{href}"/>{RECT}'


def nested(count, tag="g"):
    return f"<{tag}>" * count + RECT + f"</{tag}>" * count


def filtered(part):
    region = 'filterUnits="userSpaceOnUse" x="-16" y="-16" width="32" height="32"'
    return f'<filter id="a" {region}>{part}</filter><rect width="9" height="9" filter="url(#a)"/>'


def chain(length, copies=1):
    uses = (f'<g id="a{n}">{f"""<use href="#a{n + 1}"/>""" * copies}</g>' for n in range(length))
    return f'{"".join(uses)}<g id="a{length}">{RECT}</g>'


INNER = (
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="secret.png" width="9" height="9"/></svg>'
)
REFERENCES = {
    "image, a path in the folder": image("secret.png"),
    "image, an absolute path": image("{folder}/secret.png"),
    "image, an http URL": image("http://127.0.0.1/secret.png"),
    "image, xlink:href": image("secret.png", "xlink:href"),
    "image, another prefix of svg": (
        f"<s:image xmlns:s='http://www.w3.org/2000/svg' href='secret.png'/>{RECT}"
    ),
    "image, the path as character references": image("&#115;ecret.png"),
    "use": f'<use href="secret.svg#a"/>{RECT}',
    "feImage": filtered('<feImage href="secret.png"/>'),
    "an SVG in a data URL": image(data_url(INNER, "svg+xml")),
    "a compressed SVG in a data URL": image(data_url(gzip.compress(INNER), "svg+xml")),
    "an SVG in a data URL of text": image(
        "data:text/plain;base64," + base64.b64encode(INNER).decode()
    ),
    "a style attribute": '<rect style="fill:url(secret.svg#a)" width="9" height="9"/>',
    "a presentation attribute": (
        '<rect fill="url( &quot;secret.svg#a&quot;)" width="9" height="9"/>'
    ),
    "a style element": f"<style>rect {{fill: URL('secret.svg#a')}}</style>{RECT}",
    "a style element in parts": (
        f"<style>rect {{fill: u<![CDATA[rl(]]><!-- -->secret.svg#a)}}</style>{RECT}"
    ),
    "an import": f"<style>@import 'secret.css';</style>{RECT}",
}


@pytest.mark.parametrize("body", REFERENCES.values(), ids=REFERENCES)
def test_a_drawing_reads_nothing_outside_of_it(tmp_path, monkeypatch, body):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    body = body.replace("{folder}", str(tmp_path))
    with pytest.raises(
        UserError, match=r"^set: the icon 'ant' can't be rendered \(it refers to .*exclude"
    ):
        drawn(body)


@pytest.mark.parametrize("name", ["#secret.png", "data:image/png;/../../secret.png"])
def test_a_reference_within_a_drawing_is_no_name_of_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data:image/png;").mkdir(parents=True)
    for file in ("#secret.png", "secret.png"):
        (tmp_path / file).write_bytes(picture("PNG"))
    red = drawn(image(name))[..., 0] != drawn(RECT)[..., 0]
    assert not red.any()


BUSY = chain(5, copies=12)  # a quarter of a million parts
HOSTILE = {
    "a DOCTYPE": "<!DOCTYPE svg [<!ENTITY a 'b'>]>" + RECT,
    "an entity": RECT + "&a;",
    "another root element": f'</svg><svg xmlns="http://www.w3.org/2000/svg">{RECT}',
    "no end": "<g>",
    "half a character": RECT + "\ud800",
    "100000 nested groups": nested(100_000),
    "1e8 octaves": filtered('<feTurbulence numOctaves="1e8" baseFrequency=".1"/>'),
    "octaves that are not a number": filtered(
        '<feTurbulence numOctaves="nan" baseFrequency=".1"/>'
    ),
    "megabytes": "<a/>" * 2_000_000,
    "octaves twice": filtered(
        '<feTurbulence numOctaves="100000000" xmlns:x="x" x:numOctaves="1"/>'
    ),
}
EXHAUSTING = {
    "a huge blur": (
        '<filter id="a" x="-1e5" y="-1e5" width="2e5" height="2e5">'
        '<feGaussianBlur stdDeviation="1e5"/>'
        '</filter><rect width="9" height="9" filter="url(#a)"/>'
    ),
    "2000 turbulences": filtered('<feTurbulence numOctaves="10" baseFrequency=".1"/>' * 2000),
    "a huge pattern": (
        '<pattern id="p" patternUnits="userSpaceOnUse" width="1e5" height="1e5">'
        '<rect width="1e5" height="1e5"/></pattern>'
        '<rect width="16" height="16" fill="url(#p)"/>'
    ),
    "a use of itself": '<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>',
    "a chain of 200 uses": chain(200),
    "uses of uses, a quarter of a million parts": BUSY,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_drawing_that_would_crash_the_renderer_is_refused_before(body):
    with pytest.raises(ValueError):
        svg.check(f"<svg>{body}</svg>")
    with pytest.raises(UserError, match=r"^set: the icon 'ant' can't be rendered \(.*exclude"):
        drawn(body)


def processor_seconds_of_children():
    """Processor time of child processes that have ended, which other work does not change."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("body", examples(EXHAUSTING, {"a huge blur", "a use of itself"}))
def test_a_drawing_that_crashes_the_renderer_or_exceeds_a_limit_is_named(
    tmp_path, monkeypatch, body
):
    """Or it is drawn after all, within the limits. Nothing is left behind, such as a core dump."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(svg, "SECONDS", 1)
    children = psutil.Process().children()
    seconds_before = processor_seconds_of_children()
    try:
        assert drawn(body).shape == (48, 48, 3)
    except UserError as error:
        assert str(error).startswith("set: the icon 'ant' can't be rendered (")
    assert processor_seconds_of_children() - seconds_before < 20
    assert not list(tmp_path.iterdir()) and psutil.Process().children() == children


@pytest.mark.parametrize(
    ("limit", "value", "body", "why"),
    [
        ("SECONDS", 1, BUSY, "more than 1 s"),
        ("PATIENCE", 0.2, BUSY, "more than"),
        ("MEMORY", 1 << 28, EXHAUSTING["a huge pattern"], "failed"),
        ("SECONDS", 10, EXHAUSTING["a chain of 200 uses"], "SIG"),
    ],
    ids=["processor time", "time", "memory", "stack"],
)
def test_each_limit_of_the_renderer_holds(monkeypatch, limit, value, body, why):
    monkeypatch.setattr(svg, limit, value)
    with pytest.raises(UserError, match=rf"the icon 'ant' can't be rendered \(.*{why}"):
        drawn(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (EXHAUSTING["a huge pattern"], r"the renderer failed(: SIG[A-Z]+)?"),
        (EXHAUSTING["a chain of 200 uses"], "the renderer failed: SIG[A-Z]+"),
    ],
    ids=["panic", "stack"],
)
def test_what_a_failed_renderer_prints_is_not_shown(monkeypatch, capfd, body, why):
    """Neither its advice to its authors, nor the traceback of its process.

    One sentence names the drawing.
    """
    monkeypatch.setattr(svg, "MEMORY", 1 << 28)
    with pytest.raises(UserError) as failed:
        drawn(body)
    sentence = (
        rf"set: the icon 'ant' can't be rendered \({why}\); exclude it in the dataset's entry\."
    )
    assert re.fullmatch(sentence, str(failed.value)), failed.value
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_after_a_drawing_that_it_refuses_the_renderer_draws_others():
    with svg.renderer() as draw:
        with pytest.raises(ValueError, match="refuses"):
            draw(EXHAUSTING["a use of itself"], "0 0 9 9", 9)
        assert draw(RECT, "0 0 9 9", 9).startswith(b"\x89PNG")


LEGITIMATE = {
    "nested elements": nested(svg.DEEPEST - 2),
    "octaves": filtered('<feTurbulence numOctaves="4" baseFrequency=".1"/>'),
    "a gradient": (
        '<linearGradient id="a"><stop offset="0"/><stop offset="1" stop-color="red"/>'
        '</linearGradient><rect width="9" height="9" fill="url(#a)"/>'
    ),
    "a use": f'<g id="a">{RECT}</g><use href="#a" x="6"/><use xlink:href="#a" y="6"/>',
    "a style": f"<style>rect {{fill: #00f; clip-path: url('#c')}}</style>{RECT}",
    "text with a backslash and a URL": rf"<title>a\b url(x)</title>{RECT}",
    **{
        f"a photo, {kind}": image(data_url(picture(kind), kind.lower()))
        for kind in ("PNG", "JPEG", "GIF", "WEBP")
    },
}


@pytest.mark.parametrize("body", LEGITIMATE.values(), ids=LEGITIMATE)
def test_other_drawings_have_the_renderers_own_pixels(body):
    text = (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="-2 -2 20 20" '
        f'width="48" height="48">{body}</svg>'
    )
    png = resvg_py.svg_to_bytes(
        svg_string=text, width=48, height=48, background="#ffffff", skip_system_fonts=True
    )
    assert (drawn(body) == np.asarray(decode(bytes(png), "x"))).all()


def test_one_process_renders_many_drawings_and_no_script_is_run_again(tmp_path):
    """Snakemake's scripts have no guard against being imported as a main module."""
    (tmp_path / "script.py").write_text(
        textwrap.dedent(f"""
        import sys, psutil
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from rib.data.svg import renderer
        print("started", flush=True)
        with renderer() as draw:
            seen = set()
            for side in range(20, 60):
                draw({RECT!r}, "0 0 9 9", side)
                seen |= set(psutil.Process().children())
        print(len(seen), len(psutil.Process().children()))
        """)
    )
    made = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert made.stdout.split() == ["started", "1", "0"] and not made.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("body", [None, BUSY], ids=["idle", "at work"])
def test_the_renderer_ends_after_its_parent_is_killed(body):
    script = f"""
        import sys, psutil
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from rib.data import svg
        svg.SECONDS = 2
        with svg.renderer() as draw:
            draw({RECT!r}, "0 0 9 9", 9)
            print(psutil.Process().children()[0].pid, flush=True)
            draw({body!r}, "0 0 9 9", 9) if {body!r} else input()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        child = psutil.Process(int(process.stdout.readline()))
        assert child.is_running()
        os.kill(process.pid, signal.SIGKILL)
    child.wait(timeout=100)


@pytest.mark.parametrize(
    "body",
    [REFERENCES["image, a path in the folder"], EXHAUSTING["a chain of 200 uses"]],
    ids=["a file", "a crash"],
)
def test_a_job_with_a_hostile_drawing_ends_with_a_sentence_in_its_log_and_leaves_nothing(
    tmp_path, body
):
    icons = {"icons": {"ant": {"body": RECT}, "bee": {"body": body}}}
    files = {
        "package/icons.json": json.dumps(icons).encode(),
        "package/chars.json": b'{"a": "ant", "b": "bee"}',
    }
    tar(tmp_path / "a.tar", files)
    command = prepare_job(
        "iconify", 'space=LabelSpace(("a", "b"), ((0,), (1,)), ("a", "b"), 2), margin=0.1'
    )
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (
        made.returncode == 1
        and "the icon 'bee' can't be rendered" in (tmp_path / "log").read_text()
    )
    assert len(made.stderr.splitlines()) == 1, made.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "log", "work"} and not any(
        (tmp_path / "work").iterdir()
    )
