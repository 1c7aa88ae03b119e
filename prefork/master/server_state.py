"""What the server as a whole does, as people and scripts see it. Runs in the master."""

from __future__ import annotations

from enum import Enum


class ServerState(Enum):
    BOOTING = "booting"
    SERVING = "serving"
    RELOADING = "reloading"
    STOPPING = "stopping"
