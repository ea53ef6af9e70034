"""Species: identifiers of birds on photographs and of frogs by their calls."""

from ohmloop.tasks import _efficientnet
from ohmloop.tasks._entry import Entry
from ohmloop.tasks._fetch import DataSet
from ohmloop.tasks._species import _anuran, _birds

ENTRIES: dict[str, Entry] = {**_anuran.ENTRIES, **_birds.ENTRIES}
DATA: dict[str, DataSet] = {**_anuran.DATA, **_birds.DATA, **_efficientnet.DATA}
