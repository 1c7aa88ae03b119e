"""A Django project in one file: the admin, a page, a stream, an upload, a static file, a page that raises."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="test", USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django.middleware.gzip.GZipMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
        "OPTIONS": {"context_processors": [
            "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]},
    }],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite"}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # the others take a second
    DEFAULT_AUTO_FIELD="django.db.models.AutoField", STATIC_URL="/static/",
    LOGGING={
        "version": 1,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["stderr"], "level": "ERROR"}},
    },
)  # fmt: skip
django.setup()

from django.contrib import admin  # noqa: E402 (needs the settings)
from django.contrib.auth.models import User  # noqa: E402
from django.db import connection  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


def index(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse({"path": request.path, "query": dict(request.GET), "pid": os.getpid()})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def blocks() -> Iterator[bytes]:
        for number in range(100):
            yield f"{number:05}\n".encode() * 100

    return StreamingHttpResponse(blocks(), content_type="text/plain")


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    sent = request.FILES["file"]
    return JsonResponse({"name": sent.name, "sha256": hashlib.sha256(sent.read()).hexdigest()})


def static(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"))


def boom(request: HttpRequest) -> HttpResponse:
    raise LookupError("no such teapot")


urlpatterns = [
    path("admin/", admin.site.urls), path("page/<int:number>", index), path("stream", stream),
    path("upload", upload), path("static/site.py", static), path("boom", boom),
]  # fmt: skip
if not os.path.exists("site.sqlite"):
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("anna", "anna@example.org", "secret")
    connection.close()  # It must not be shared by the workers.
application = get_wsgi_application()
