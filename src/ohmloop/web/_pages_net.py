"""The network's half of the page: jobs, runs, devices, and the co-design board."""

from __future__ import annotations

from fastapi import APIRouter

from ohmloop.web import (
    _pages_net_codesign,
    _pages_net_devices,
    _pages_net_jobs,
    _pages_net_new,
    _pages_net_runs,
)

router = APIRouter(include_in_schema=False)
for part in (
    _pages_net_jobs,
    _pages_net_new,  # before the runs: "/runs/new" is no run
    _pages_net_runs,
    _pages_net_devices,
    _pages_net_codesign,
):
    router.include_router(part.router)
