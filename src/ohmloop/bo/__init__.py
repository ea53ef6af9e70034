"""Bayesian optimisation: numbers in, numbers out. Knows no material, no network, no file."""

from ohmloop.bo._suggest import Box, best, suggest

__all__ = ["Box", "best", "suggest"]
