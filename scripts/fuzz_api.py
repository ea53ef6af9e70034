"""Send thousands of generated requests to the JSON API of a served folder; none may end in a 500.

    .venv/bin/python scripts/fuzz_api.py --calls 10000

Requests come from the API's own document (schemathesis), made sharper: names, trials and variables that exist
are tried beside random ones, so that requests reach the library. Answers are checked against the document.
Exit code 1 if an answer was a 500, or was none that the document names.
"""

from __future__ import annotations

import argparse
import collections
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from ohmloop.campaign import Campaign
from ohmloop.device import load_device, save_device
from ohmloop.web import create_app

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,missing_required_header"
)
CAMPAIGN = """
schema_version = 1
name = "Small"

[variables.x]
type = "continuous"
unit = "um"
low = 0
high = 1
step = 0.1

[variables.kind]
type = "categorical"
options = ["plain", "doped"]

[variables.humidity]
type = "continuous"
role = "context"
low = 0
high = 80

[[objectives]]
name = "usability"

[[stages]]
name = "fabricated"
question = "Is it whole?"

[[stages]]
name = "switches"
question = "Does it switch?"
"""


class Counting:
    """ASGI middleware that counts answers by status."""

    def __init__(self, app: Any) -> None:
        self.app, self.statuses = app, collections.Counter[int]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on and count its answer."""

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.statuses[message["status"]] += 1
            await send(message)

        await self.app(scope, receive, counted if scope["type"] == "http" else send)


def fill(root: Path) -> None:
    for name in ("films", "Film 2"):
        with Campaign.new(root / name, text=CAMPAIGN) as campaign:
            for x in (0.1, 0.5, 0.9):
                campaign.add({"x": x, "kind": "doped", "humidity": 40})
            campaign.record("T001", values={"usability": 0.4}, passed="all")
    (root / "devices").mkdir()
    save_device(load_device("lognormal:0.3"), root / "devices" / "mine.json")
    (root / "runs" / "first").mkdir(parents=True)
    (root / "runs" / "first" / "config.json").write_text('{"task": "digits"}')


def sharpen(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with values that exist beside the random ones."""
    known = {
        "campaigns": ["films", "Film 2", "..", "films\u0000"],
        "runs": ["first"],
        "devices": ["mine", "nanowire-30"],
    }
    for path, methods in document["paths"].items():
        part = path.split("/")[3]
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                values = {
                    "name": known.get(part),
                    "trial": ["T001", "2", "T003", "T009"],
                    "id": ["1", "2", "7"],
                    "If-Match": ['"3"', '"99"', "*", 'W/"1"'],
                }.get(parameter["name"])
                if values:
                    parameter["schema"] = {"anyOf": [{"enum": values}, parameter["schema"]]}
    number, text = {"type": "number"}, {"type": "string"}
    recipe = {"x": number, "kind": {"enum": ["plain", "doped"]}, "humidity": number}
    fields = {
        ("OwnExperiment", "recipe"): recipe,
        ("Decision", "changes"): recipe,
        ("SuggestionRequest", "pin"): recipe,
        ("SuggestionRequest", "context"): recipe,
        ("Result", "values"): {"usability": number},
        ("Result", "errors"): {"usability": number},
        ("NewJob", "arguments"): {
            "q": {"type": "integer"},
            "task": text,
            "runs": {"type": "array"},
        },
    }
    schemas = document["components"]["schemas"]
    for (name, field), properties in fields.items():
        schemas[name]["properties"][field]["properties"] = properties
    schemas["NewJob"]["properties"]["kind"] = {"enum": ["suggest", "train", "report", "dance"]}
    schemas["NewJob"]["properties"]["target"] = {
        "anyOf": [{"enum": ["campaign/films", "run/first", "run/new one", "device/x"]}, text]
    }
    return document


def fuzz(calls: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as place, socket.socket() as listener:
        root = Path(place) / "lab"
        root.mkdir()
        fill(root)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        app = create_app(root, jobs=False)
        counting = Counting(app)
        server = uvicorn.Server(uvicorn.Config(counting, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        document = Path(place) / "openapi.json"
        document.write_text(json.dumps(sharpen(app.openapi())))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        began, failed = time.monotonic(), False
        try:
            while sum(counting.statuses.values()) < calls and not failed:
                left = calls - sum(counting.statuses.values())
                failed = _round(document, address, min(40, max(5, left // 25)), seed)
                seed += 1
                print(
                    f"{sum(counting.statuses.values())} requests so far",
                    file=sys.stderr,
                    flush=True,
                )
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        finally:
            server.should_exit = True
            thread.join(20)
        statuses = dict(sorted(counting.statuses.items()))
        print(
            f"{sum(statuses.values())} requests in {time.monotonic() - began:.0f} s, answers by status: "
            f"{statuses}"
        )
        for name in ("films", "Film 2"):
            with Campaign.open(root / name, writable=False) as campaign:
                print(
                    f"{name}: {campaign.state.last_event} events, wrong: {campaign.check() or 'nothing'}"
                )
                failed |= bool(campaign.check())
    return int(failed or bool(statuses.get(500)))


def _round(document: Path, address: str, examples: int, seed: int) -> bool:
    """Run schemathesis once; return whether it found something."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", address),
        *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--seed", str(seed)),
        *("--max-examples", str(examples), "--exclude-path-regex", "events$", "--warnings", "off"),
        *("--suppress-health-check", "all", "--no-color", "--request-timeout", "60"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=document.parent)
    if run.returncode:
        print(run.stdout[-20_000:], run.stderr[-5_000:], file=sys.stderr)
    return run.returncode != 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(fuzz(given.calls, given.seed))
