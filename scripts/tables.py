"""Put the tables that benchmarks wrote between their marks in README and docs; ``--check`` compares only."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def filled(text: str) -> str:
    """Return a page with each marked table as it lies in bench/results, or a line that it was not measured."""

    def put(match: re.Match[str]) -> str:
        path = ROOT / "bench" / "results" / f"{match[2]}.md"
        table = f"*Not measured so far: there is no `bench/results/{path.name}`.*"
        if path.exists():
            table = path.read_text(encoding="utf-8").strip()
        return f"{match[1]}\n{table}\n\n{match[3]}"

    return MARK.sub(put, text)


def main() -> int:
    stale = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = page.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"stale tables in {', '.join(stale)}: run scripts/tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
