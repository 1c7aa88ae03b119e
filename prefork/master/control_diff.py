"""What a reload changes, or has changed, as commands tell it.

Pure. Runs in the master.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefork.config import Config, changes


def difference(before: Config, after: Config) -> dict[str, Any]:
    """Return the keys that differ, what becomes of the pools, and both hashes; no secrets."""
    old, new = ({pool.name for pool in config.pools} for config in (before, after))
    fates = {name: "replaced" if name in old else "new" for name in (pool.name for pool in after.pools)}
    return {
        "changes": [asdict(change) for change in changes(before, after)],
        "pools": {**fates, **dict.fromkeys(sorted(old - new), "removed")},
        "config_hash": [before.digest, after.digest],
    }
