"""Validates a file of OCSF Detection Findings, one JSON document a line.

By JSON Schema (closed: no member that the class does not have), by py-ocsf-models, and what neither
looks at: that the text beside a number is its caption, that the schema's constraints hold, and that an
observable says where its value stands.
"""

import collections
import json
import re
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from pydantic import ValidationError
from py_ocsf_models.events.findings.detection_finding import DetectionFinding

VERSION = "1.5.0"
CLASS = "detection_finding"
PROFILES = ["cloud", "security_control"]
SHOWN_MAX = 20
# Where the models are narrower than OCSF 1.5.0: account.type_id has 15 (Google Workspace) and 17 (M365
# Tenant) there, and of a user only one of account, name and uid is required.
MODELS_DISAGREE = {
    ("cloud.account.type_id", "enum"),
    ("resources.[].owner.account", "missing"),
    ("resources.[].owner.type_id", "missing"),
    ("resources.[].owner.uid", "missing"),
}


def captions(attributes, document, path="$"):
    """Numbers with a text beside them, where the text is not the caption of the number."""
    for name, attribute in attributes.items():
        sibling = attribute.get("sibling")
        if name not in document or sibling not in document or "enum" not in attribute:
            continue
        known = attribute["enum"].get(str(document[name]), {}).get("caption")
        if document[name] != 99 and document[sibling] != known:
            yield f"{path}.{sibling}: {document[sibling]!r} is not {known!r} ({name} {document[name]})"


def unmet(schema, object_type, document, path="$"):
    """Constraints of the schema that JSON Schema's form of it leaves out."""
    kind = schema["classes"].get(object_type) or schema["objects"][object_type]
    for constraint, names in (kind.get("constraints") or {}).items():
        count = sum(name in document for name in names)
        if (constraint == "at_least_one" and count == 0) or (constraint == "just_one" and count != 1):
            yield f"{path} ({object_type}): {constraint} of {', '.join(names)}"


def inside(schema, object_type, document, path="$"):
    """The captions and constraints of a document and of all objects in it."""
    kind = schema["classes"].get(object_type) or schema["objects"][object_type]
    yield from captions(kind["attributes"], document, path)
    yield from unmet(schema, object_type, document, path)
    for name, value in document.items():
        inner = kind["attributes"].get(name, {}).get("object_type")
        if inner is None or inner == "object":
            continue
        for at, element in enumerate(value if isinstance(value, list) else [value]):
            yield from inside(schema, inner, element, f"{path}.{name}[{at}]")


def by_models(document):
    """What py-ocsf-models says, but for what the schema itself says otherwise."""
    try:
        DetectionFinding.model_validate(document)
    except ValidationError as error:
        for one in error.errors():
            place = ".".join("[]" if isinstance(part, int) else part for part in one["loc"])
            if (place, one["type"]) not in MODELS_DISAGREE:
                yield f"py-ocsf-models: {place}: {one['msg']}"


def at_path(document, path):
    """What stands at a path such as `evidences[0].src_endpoint.ip`; lists give all their elements."""
    found = [document]
    for name, place in re.findall(r"([^.\[\]]+)(?:\[(\d+)\])?", path):
        found = [one[name] for one in found if isinstance(one, dict) and name in one]
        if place:
            found = [one[int(place)] for one in found if int(place) < len(one)]
        else:
            found = [e for one in found for e in (one if isinstance(one, list) else [one])]
    return found


def observables(document):
    for observable in document.get("observables", []):
        values = at_path(document, observable["name"])
        shortened = document["unmapped"]["exfilwatch"].get("truncated")
        if observable["value"] not in values and not (shortened and not values):
            yield f"observable {observable['name']}: {observable['value']!r} does not stand there"


def main(path):
    schema = get_ocsf_schema(version=VERSION)
    validator = Draft202012Validator(
        OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION)).get_class_schema(CLASS, PROFILES))
    wrong, seen = collections.Counter(), collections.Counter()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            ours = document["unmapped"]["exfilwatch"]
            seen[document["cloud"]["provider"]] += 1
            seen[document["type_name"]] += 1
            seen["truncated"] += ours.get("truncated", False)
            seen["suppressed"] += document["status_id"] == 3
            seen["detections", ours["detection"]] += 1
            problems = [f"{e.json_path}: {e.message[:160]}" for e in validator.iter_errors(document)]
            problems += inside(schema, CLASS, document)
            problems += observables(document)
            problems += by_models(document)
            for problem in problems:
                wrong[re.sub(r"\[\d+\]", "[]", problem)] += 1
    detections = sum(isinstance(key, tuple) for key in seen)
    counts = ", ".join(f"{count} {key}" for key, count in seen.items() if not isinstance(key, tuple))
    documents = seen["Google Workspace"] + seen["Microsoft 365"]
    print(f"{documents} documents of {detections} detections against OCSF {VERSION}: {counts}")
    for needed in ["Google Workspace", "Microsoft 365", "Detection Finding: Create",
                   "Detection Finding: Update", "Detection Finding: Close", "truncated", "suppressed"]:
        if not seen[needed]:
            wrong[f"there is no document: {needed}"] += 1
    for problem, count in wrong.most_common(SHOWN_MAX):
        print(f"wrong {count} times: {problem}", file=sys.stderr)
    return 1 if wrong else 0


sys.exit(main(sys.argv[1]))
