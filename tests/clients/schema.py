"""Checks JSON against the schemas of a Google discovery document that the client library brings.

A discovery schema does not forbid unknown members, but a simulator that invents some has not
understood the vendor: they are problems here.
"""

import json
import pathlib
import re

import googleapiclient.discovery_cache

DOCUMENTS = pathlib.Path(googleapiclient.discovery_cache.__file__).parent / "documents"
INT64 = re.compile(r"^-?[0-9]{1,19}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")


class Document:
    """A bundled discovery document."""

    def __init__(self, name):
        text = (DOCUMENTS / f"{name}.json").read_text(encoding="utf-8")
        self.document = json.loads(text)

    def method(self, resource, name):
        """The description of a method of a top-level resource."""
        return self.document["resources"][resource]["methods"][name]

    def problems(self, schema_name, value):
        """All that is wrong with the value as that schema; none for a good one."""
        schema = self.document["schemas"][schema_name]
        return list(self._problems(schema, value, schema_name))

    def _problems(self, schema, value, where):
        if "$ref" in schema:
            schema = self.document["schemas"][schema["$ref"]]
        kind = schema.get("type")
        if kind == "object":
            yield from self._object(schema, value, where)
        elif kind == "array":
            if not isinstance(value, list):
                yield f"{where}: not an array: {value!r}"
                return
            for element in value:
                yield from self._problems(schema["items"], element, f"{where}[]")
        elif not _is_scalar(schema, value):
            yield f"{where}: not a {kind} {schema.get('format', '')}: {value!r}"

    def _object(self, schema, value, where):
        if not isinstance(value, dict):
            yield f"{where}: not an object: {value!r}"
            return
        known = schema.get("properties", {})
        others = schema.get("additionalProperties")
        for name, member in value.items():
            if name in known:
                yield from self._problems(known[name], member, f"{where}.{name}")
            elif others:
                yield from self._problems(others, member, f"{where}.{name}")
            else:
                yield f"{where}.{name}: unknown member"


def _is_scalar(schema, value):
    kind, form = schema.get("type"), schema.get("format")
    if kind == "any":
        return True
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "number"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind != "string" or not isinstance(value, str):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if form in ("int64", "uint64"):
        return INT64.match(value) is not None
    if form in ("date-time", "google-datetime"):
        return TIME.match(value) is not None
    return True
