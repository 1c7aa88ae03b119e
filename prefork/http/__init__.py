"""Pure HTTP/1.1: bytes in, values out; no socket, clock, log or environment."""
