"""Driving: signs, steering, closed loops, 3D detection."""

from ohmloop.tasks._driving import _donkey, _gtsrb, _highway, _metadrive
from ohmloop.tasks._driving._kitti import _tasks as _detection
from ohmloop.tasks._entry import Entry
from ohmloop.tasks._fetch import DataSet

ENTRIES: dict[str, Entry] = {
    **_donkey.ENTRIES,
    **_gtsrb.ENTRIES,
    **_highway.ENTRIES,
    **_metadrive.ENTRIES,
    **_detection.ENTRIES,
}
DATA: dict[str, DataSet] = {
    **_donkey.DATA,
    **_gtsrb.DATA,
    **_highway.DATA,
    **_metadrive.DATA,
    **_detection.DATA,
}
