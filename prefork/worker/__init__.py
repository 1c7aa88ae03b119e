"""What runs only in a worker: boot, the serve loop, connections, the gateway to the application."""
