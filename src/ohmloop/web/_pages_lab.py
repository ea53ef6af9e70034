"""The lab's half of the page: campaigns, suggestions, files, results."""

from __future__ import annotations

from fastapi import APIRouter

from ohmloop.web import (
    _pages_lab_book,
    _pages_lab_decide,
    _pages_lab_files,
    _pages_lab_home,
    _pages_lab_overview,
    _pages_lab_trials,
)

router = APIRouter(include_in_schema=False)
for part in (
    _pages_lab_home,  # before the rest: "/campaigns/new" is no campaign
    _pages_lab_overview,
    _pages_lab_decide,
    _pages_lab_trials,
    _pages_lab_files,
    _pages_lab_book,
):
    router.include_router(part.router)
