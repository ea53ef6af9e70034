"""PDF reports: the same bytes every time, whole, and errors that say what to install."""

import sys
from pathlib import Path

import pytest

from ohmloop.errors import OhmloopError
from ohmloop.report._page import Methods, new_page, plot, write_page
from ohmloop.report._style import new_figure, styled_axes


def page() -> object:
    figure = new_figure(3, 2)
    styled_axes(figure).plot([0, 1], [1, 2], color="#000000")
    shown = plot("a", figure, "A <line>", "A line.", [("x", "y"), (0, 1), (1, 2)])
    return new_page(
        "small",
        "loop.html.j2",
        plots=[shown],
        title="Small & simple",
        lead="",
        methods=Methods(("Done.",), (("seed", "0"),), ("Somebody 2020.",)),
        provenance=(("weights (sha256)", "ab" * 32),),
        worths=(),
        steps=(),
        devices=(),
        joint=None,
        halves=(),
        points=(),
        is_behind=False,
        folder="x",
    )


@pytest.mark.slow
def test_the_same_page_gives_the_same_pdf(tmp_path: Path) -> None:
    pytest.importorskip("weasyprint", exc_type=(ImportError, OSError))
    for name in ("a", "b"):
        write_page(page(), tmp_path / name, pdf=True)  # type: ignore[arg-type]
    first = (tmp_path / "a" / "small.pdf").read_bytes()
    assert first.startswith(b"%PDF-")
    assert b"CreationDate" not in first
    assert first == (tmp_path / "b" / "small.pdf").read_bytes()


def test_without_weasyprint_the_error_gives_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(OhmloopError, match=r'pip install "ohmloop\[pdf\]"'):
        write_page(page(), tmp_path, pdf=True)  # type: ignore[arg-type]
    assert not (tmp_path / "small.html").exists()  # no half report


def test_without_pango_the_error_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "weasyprint"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise OSError(\"cannot load library 'libpango-1.0-0'\")\n")
    for name in [n for n in sys.modules if n.partition(".")[0] == "weasyprint"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OhmloopError, match=r"libpango-1\.0-0 libpangoft2-1\.0-0"):
        write_page(page(), tmp_path / "out", pdf=True)  # type: ignore[arg-type]
