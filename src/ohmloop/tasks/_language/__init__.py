"""Vision and language: networks that read, name and describe."""

from ohmloop.tasks._entry import Entry
from ohmloop.tasks._fetch import DataSet
from ohmloop.tasks._language import _caption, _chat, _folder, _latex, _lm, _minilm, _retrieval

ENTRIES: dict[str, Entry] = {
    **_caption.ENTRIES,
    **_chat.ENTRIES,
    **_folder.ENTRIES,
    **_latex.ENTRIES,
    **_lm.ENTRIES,
    **_retrieval.ENTRIES,
}
DATA: dict[str, DataSet] = {
    **_folder.DATA,
    **_latex.DATA,
    **_lm.DATA,
    **_minilm.DATA,
    **_retrieval.DATA,
}
