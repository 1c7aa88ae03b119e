"""The admin process: health, status, metrics and the page, served by the ordinary worker code. Nothing here changes
the server.

``prefork.admin.process`` runs only in that process; the rest is a WSGI application that knows no process at all.
"""
