"""`ohmloop analyze` on all 43 public workbooks in one command, three times, as a whole process."""

import json
import subprocess
import sys
import time
from pathlib import Path

from _common import middle, save

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "perovskite-nanowire-iv" / "raw"


def main() -> None:
    if not FOLDER.is_dir():
        print(f"skipped: the public workbooks are not in {FOLDER}", file=sys.stderr)
        return
    times = []
    for _ in range(3):
        start = time.perf_counter()
        code = "import sys; from ohmloop.cli import main; sys.argv[0] = 'ohmloop'; main()"
        run = subprocess.run(
            [sys.executable, "-c", code, "analyze", str(FOLDER), "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        times.append(time.perf_counter() - start)
        rows = json.loads(run.stdout)
        assert len(rows) == 43
        assert not any("error" in row for row in rows)
    table = f"# Analysis of 43 workbooks\n\n{__doc__}\n\n{middle(times)} s\n"
    save("analyze", {"seconds": times, "files": len(rows)}, table)


if __name__ == "__main__":
    main()
