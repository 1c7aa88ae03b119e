"""The servers with four workers, as they are set up for production, for the reload and mixed-load comparisons.

One request at a time in each worker, so that all have the same number of places. Idle connections may stay for longer
than the clients are idle, where a server has such a setting.
"""

from __future__ import annotations

from bench.servers import Server

WORKERS = 4
APP = "bench.waiting_app:application"
KEPT_S = 75

PREFORK = Server(
    "prefork", "prefork", f"{{bin}}/prefork {APP} -w {WORKERS} -b 127.0.0.1:{{port}} --set log.access=off"
)
GUNICORN = f"{{bin}}/gunicorn -w {WORKERS} --keep-alive {KEPT_S} -b 127.0.0.1:{{port}} {APP}"
# By itself TERM cuts requests off; with this hook it waits for them.
UWSGI = (
    f"{{bin}}/uwsgi --master --processes {WORKERS} --module {APP} --disable-logging"
    " --hook-master-start 'unix_signal:15 gracefully_kill_them_all'"
)

RELOADABLE = (
    PREFORK,
    Server("granian", "granian", f"{{bin}}/granian --interface wsgi --http 1 --no-ws --workers {WORKERS}"
           f" --blocking-threads 1 --host 127.0.0.1 --port {{port}} {APP}"),
    # Its router keeps connections; a worker that keeps one itself serves nobody else meanwhile.
    Server("uWSGI, router", "uWSGI", f"{UWSGI} --http 127.0.0.1:{{port}}"
           f" --http-keepalive={KEPT_S} --http-timeout {KEPT_S}"),
    # Without the router it closes each connection, and does not say so by itself.
    Server("uWSGI", "uWSGI", f"{UWSGI} --http-socket 127.0.0.1:{{port}} --add-header 'Connection: close'"),
    Server("gunicorn gthread", "gunicorn", f"{GUNICORN} -k gthread --threads 1"),
    Server("gunicorn sync", "gunicorn", f"{GUNICORN} -k sync"),
)  # fmt: skip
SINGLE_PROCESS = Server(
    "waitress, one process",
    "waitress",
    f"{{bin}}/waitress-serve --threads={WORKERS} --listen=127.0.0.1:{{port}} {APP}",
)
