"""What every report page must hold: nothing from outside, and each figure's numbers beside it."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        for key, value in attrs:
            if key in {"src", "href", "xlink:href"}:
                self.links.append(value or "")
            if key == "id":
                self.ids.append(value or "")
            assert not key.startswith("on")


def check(page: Path) -> str:
    """Return the text of a page that needs no network and names only files that are there."""
    text = page.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(text)
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    targets = {link[1:] for link in reader.links if link.startswith("#")}
    assert targets <= set(reader.ids)
    assert set(re.findall(r"url\(#([\w-]+)\)", text)) <= set(reader.ids)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    named = re.findall(r"Numbers: ([\w.-]+\.csv)", text)
    assert len(named) == text.count("<figure>")
    for name in named:
        rows = (page.parent / name).read_text(encoding="utf-8").splitlines()
        assert len(rows) > 1
        assert len({row.count(",") for row in rows if '"' not in row}) == 1
    assert "nan" not in re.sub(r"<[^>]*>", " ", text).lower().split()
    return text


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV by the names in its head."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
