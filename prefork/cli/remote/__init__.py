"""Commands to a server that runs: finding it, asking it, and telling what it answers."""
