"""The lab's loop: propose the next recipes, let a person decide, record, learn from failures."""

from ohmloop.campaign._advice import Advice, CampaignStatus
from ohmloop.campaign._campaign import Campaign
from ohmloop.campaign._config import Config, list_templates, parse_config, read_config, template
from ohmloop.campaign._ingest import Ingested
from ohmloop.campaign._log import LogLine
from ohmloop.campaign._reasons import recipe_text, sentences
from ohmloop.campaign._replay import ReplayRun, best_so_far, replay, summary
from ohmloop.campaign._replay_table import ReplayTable, list_replays, load_replay
from ohmloop.campaign._sheet_import import Imported
from ohmloop.campaign._task_accuracy import law_of, reassess
from ohmloop.campaign._trials import Record, State, Trial
from ohmloop.campaign._virtual import make_in_virtual_lab

__all__ = [
    "Advice",
    "Campaign",
    "CampaignStatus",
    "Config",
    "Imported",
    "Ingested",
    "LogLine",
    "Record",
    "ReplayRun",
    "ReplayTable",
    "State",
    "Trial",
    "best_so_far",
    "law_of",
    "list_replays",
    "list_templates",
    "load_replay",
    "make_in_virtual_lab",
    "parse_config",
    "read_config",
    "reassess",
    "recipe_text",
    "replay",
    "sentences",
    "summary",
    "template",
]
