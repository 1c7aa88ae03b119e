"""A pre-forking server for Python web applications (WSGI) and blocking socket services on Linux."""

__version__ = "0.1.0"
