"""The application whose memory is measured: a Django site with a large cache that every request reads."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import random
from functools import lru_cache
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

ROWS, ROWS_READ, ANSWERS = 40_000, 20, 200
PAGES, PAGE_BYTES = 3_000, 16 * 1024
TEMPLATE = """{{ pid }} {% for row in rows %}
{{ row.title|upper }}: {{ row.price|floatformat:2 }}, {{ row.tags|join:'/' }}{% endfor %}"""

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        f"django.contrib.{name}"
        for name in ("admin", "auth", "contenttypes", "sessions", "messages", "sitemaps", "syndication")
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"rows.txt": TEMPLATE})]},
    }],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)  # fmt: skip
application = get_wsgi_application()
for module in pkgutil.walk_packages(django.__path__, "django.", onerror=lambda name: None):
    if not module.name.endswith("__main__") and ".gis" not in module.name:
        with contextlib.suppress(Exception):  # it needs a database or a package that is not there
            importlib.import_module(module.name)

cached_rows: list[dict[str, Any]] = [
    {"id": n, "title": f"product {n}", "price": n * 1.01, "tags": [f"tag-{n % 50}", str(n)]}
    for n in range(ROWS)
]
cached_pages = [bytes(PAGE_BYTES) for _ in range(PAGES)]


@lru_cache(maxsize=ANSWERS)
def search(words: int) -> list[dict[str, Any]]:
    """Return copies of some of the rows, which this worker then keeps, as applications do."""
    chance = random.Random(words)
    # Half of the reads are of the eighth of the rows that people like most.
    chosen = (cached_rows[int(ROWS * chance.random() ** 3)] for _ in range(ROWS_READ))
    return [{**row, "tags": list(row["tags"]), "links": [{"next": row["id"] + 1}]} for row in chosen]


def show(request: HttpRequest) -> HttpResponse:
    """Render some of the cache, after the pid of the process that does."""
    rows = search(random.randrange(100 * ANSWERS))
    response = render(request, "rows.txt", {"pid": os.getpid(), "rows": rows})
    response["X-Page-Length"] = str(len(random.choice(cached_pages)))
    return response


urlpatterns = [path("", show)]
