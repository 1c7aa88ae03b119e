"""The JSON Schema of the config, for editors and ``prefork schema``, from the table that validates."""

from __future__ import annotations

from typing import Any, Final

from prefork.config.composites import INTERPOLATED, object_schema
from prefork.config.schema import NAME, Config, Pool

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
"""What the YAML language server knows best."""


def jsonschema() -> dict[str, Any]:
    """Return the schema: what it refuses the loader refuses too, but not the other way round."""
    server, pool = object_schema(Config)["properties"], object_schema(Pool)["properties"]
    return {
        "$schema": DIALECT,
        "title": "prefork",
        "type": "object",
        "properties": {
            **{name: {"$ref": f"#/definitions/pool/properties/{name}"} for name in pool},
            **server,
            "pools": {
                "description": "Several applications, by name; keys at top level are their defaults.",
                "type": ["object", "null"],
                "propertyNames": {"pattern": f"^{NAME.pattern}$", "not": {"const": "admin"}},
                "additionalProperties": {"$ref": "#/definitions/pool"},
            },
        },
        "additionalProperties": False,
        "definitions": {
            "interpolated": INTERPOLATED,
            "pool": {"type": "object", "properties": pool, "additionalProperties": False},
        },
    }
