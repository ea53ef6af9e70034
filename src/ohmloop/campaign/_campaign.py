"""The lab's loop: propose, decide, record, go on. The one stateful class of ohmloop."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ohmloop.campaign import _sheet_import, _sheets
from ohmloop.campaign._config import Config, list_templates, parse_config, read_config, template
from ohmloop.campaign._conflict import refuse_stale
from ohmloop.campaign._deciding import Deciding
from ohmloop.campaign._recording import Recording
from ohmloop.campaign._suggesting import Suggesting
from ohmloop.campaign._trials import State, fold
from ohmloop.errors import CampaignError, ConflictError, StoreError
from ohmloop.store import Draft, Event, Store

SETTINGS = "campaign.toml"


class Campaign(Suggesting, Deciding, Recording):
    """A campaign folder, open. Use `new` or `open`; ``with`` closes it.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp() + "/first"
    >>> with Campaign.new(folder, template="perovskite-nanowires") as campaign:
    ...     [trial.id for trial in campaign.suggest(2)]
    ['T001', 'T002']

    Attributes:
        folder: Where it lies.
        config: The settings, as ``campaign.toml`` has them.
        has_new_settings: Whether ``campaign.toml`` had changed when it was opened; the log keeps both.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        config: Config,
        actor: str | None,
        seen: int | None = None,
    ) -> None:
        self.folder, self.config = folder, config
        self._store, self._actor = store, actor
        self._seen, self._own = seen, set[int]()
        self._state = fold(store.events())
        self.has_new_settings = False

    # -- opening ----------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        folder: str | Path,
        *,
        template: str | None = None,
        text: str | None = None,
        actor: str | None = None,
    ) -> Campaign:
        """Start a campaign: a folder with ``campaign.toml`` and an empty event log.

        Args:
            folder: Where; it may exist, with or without a ``campaign.toml`` of yours.
            template: Name of a built-in template (`list_templates`).
            text: Settings to write, instead of a template.
            actor: Who, for the event log; the login name by default.

        Raises:
            CampaignError: If the settings are wrong, or there are two sets of them.
            StoreError: If there is a campaign already or the folder cannot be written.
        """
        place = Path(folder)
        path = place / SETTINGS
        if template is not None:
            text = _template(template)
        if path.exists():
            if text is not None:
                raise CampaignError(
                    f"{path} exists already; leave the template out to use it, or take another folder."
                )
            config = read_config(path)
        elif text is None:
            raise CampaignError(
                f"{path} is not there. Take a template ({', '.join(list_templates())}): "
                f"ohmloop campaign new {place} --template {list_templates()[0]}, or write one first."
            )
        else:
            config = parse_config(text)
        store = Store.create(place)

        def begin(events: list[Event]) -> list[Draft]:
            # Under the lock: of two people who start the same campaign one does, wholly.
            if events:
                raise StoreError(
                    f"{place} holds a campaign already; open it, or choose another folder."
                )
            if text is not None:
                _write_text(path, text)
            settings = path.read_text(encoding="utf-8-sig")
            return [
                Draft("created", {"name": config.name}),
                Draft("configured", {"text": settings}),
            ]

        try:
            store.transact(begin, actor=actor)
        except BaseException:
            store.close()
            raise
        return cls(place, store, config, actor)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        writable: bool = True,
        actor: str | None = None,
        seen: int | None = None,
    ) -> Campaign:
        """Open a campaign folder.

        Args:
            folder: The folder.
            writable: Whether to record.
            actor: Who, for the event log; the login name by default.
            seen: Number of the last event that the person saw (`State.last_event`). A decision or result that
                touches what somebody else changed later is refused with `ConflictError`. None: the latest word
                counts.

        Raises:
            CampaignError: If ``campaign.toml`` is missing or wrong; the data stay as they are.
            StoreError: If the folder is no campaign, is damaged, or cannot be written as asked.
        """
        place = Path(folder)
        store = Store.open(place, writable=writable)
        try:
            config = read_config(place / SETTINGS)
            campaign = cls(place, store, config, actor, seen)
            text = (place / SETTINGS).read_text(encoding="utf-8-sig")
            if writable and text != campaign._state.config_text:
                store.append(Draft("configured", {"text": text}), actor=actor)
                campaign.has_new_settings = True
        except BaseException:
            store.close()
            raise
        return campaign

    @classmethod
    def mend(
        cls, folder: str | Path, text: str, *, was: str | None = None, actor: str | None = None
    ) -> None:
        """Replace a ``campaign.toml`` that may be too damaged to open the campaign; the log keeps the new one.

        Args:
            folder: The campaign's folder.
            text: The new settings, which are checked first.
            was: sha256, in hex, of the file as the person saw it; None: whatever is there is replaced.
            actor: Who, for the event log; the login name by default.

        Raises:
            CampaignError: If the text is wrong; nothing changes then.
            ConflictError: If the file is not what the person saw.
            StoreError: If the folder is no campaign, is damaged or cannot be written.
        """
        parse_config(text)
        path = Path(folder) / SETTINGS

        def draft(events: list[Event]) -> list[Draft]:
            found = path.read_bytes() if path.exists() else b""
            if was is not None and hashlib.sha256(found).hexdigest() != was:
                raise ConflictError(
                    f"{path.name} was changed meanwhile. Nothing was saved. Look at it as it is now, and "
                    "decide again."
                )
            _write_text(path, text)
            known = text == fold(events).config_text
            return [] if known else [Draft("configured", {"text": text})]

        with Store.open(Path(folder)) as store:
            store.transact(draft, actor=actor)

    def close(self) -> None:
        """Close the folder; a second call does nothing."""
        self._store.close()

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- settings and sheets ----------------------------------------------------------------

    def configure(self, text: str) -> None:
        """Replace ``campaign.toml`` by another text, which is checked first; the log keeps both.

        Raises:
            CampaignError: If the settings are wrong; nothing changes then.
            ConflictError: If the file was changed since it was opened, or others changed it (`open`).
        """
        config = parse_config(text)
        path = self.folder / SETTINGS

        def draft(now: State) -> Draft:
            if path.read_text(encoding="utf-8-sig") != now.config_text:
                raise ConflictError(
                    f"{path} was changed by hand while it was open. Nothing was recorded. Open the campaign "
                    "again, and repeat."
                )
            refuse_stale(
                self.config,
                now.history,
                [("configured", {})],
                seen=now.last_event if self._seen is None else self._seen,
                own=self._own,
            )
            _write_text(path, text)
            return Draft("configured", {"text": text})

        if text != self.state.config_text:
            self._record(draft)
        self.config = config

    def export(self, path: str | Path) -> Path:
        """Write the trial sheet, one row a device, as .csv or .xlsx; `import_` reads it back."""
        return _sheets.write(self.config, self.state, Path(path))

    def import_(self, path: str | Path, *, earlier: str | None = None) -> _sheet_import.Imported:
        """Read a trial sheet that was filled in: results, decisions and experiments of one's own.

        All rows are checked before any is recorded. Rows that are in the campaign already change nothing; a
        device that is named again adds to its result, or corrects it.

        Args:
            path: A .csv or .xlsx file with the columns that `export` writes, in any order.
            earlier: Name of another campaign that the rows come from: they inform the model, as far as
                they turn out to agree, and are no trials of this one.

        Raises:
            CampaignError: Naming every row and column that does not fit; nothing is recorded then.
        """
        return _sheet_import.read(self, Path(path), earlier)


_template = template


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")  # whole or absent, also for a killed process
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error
