"""Sends the telemetry of morphogenetic networks to Oona without making the training loop wait."""

from oona_client.client import Client
from oona_client.counts import Counts, Stats
from oona_client.version import VERSION as __version__
from oona_client.wire import InvalidFrame, Outcome, State

__all__ = ["Client", "Counts", "InvalidFrame", "Outcome", "State", "Stats", "__version__"]
