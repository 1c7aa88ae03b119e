"""What runs only in the master: the supervisor, slots, listeners, signals."""
