"""Pages written from the code when the site is built: command line, HTTP API, analyses and settings."""

import html
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from occluscope import analyses
from occluscope.analyses.contract import AnalysisSpec
from service.app import create_app
from service.settings import Settings

Schema = Mapping[str, Any]
MOST_NAMES: Final = 8  # of a type; where there are more, the field's description lists them


def write(folder: Path) -> None:
    """Write the pages into a folder; one that says what it said is left as it is, so that Sphinx need not read it."""
    pages: dict[str, Callable[[], str]] = {
        "cli.md": command_line,
        "api.md": http_api,
        "analyses.md": all_analyses,
        "settings.md": all_settings,
    }
    folder.mkdir(exist_ok=True)
    for name, page in pages.items():
        text, path = page(), folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def command_line() -> str:
    """Every command with its arguments and options, by Typer itself."""
    command = [sys.executable, "-m", "typer", "service.cli", "utils", "docs", "--name", "occluscope"]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The list of commands at the top is cut to the width of a terminal; the sections below it say all of it.
    top, commands, rest = re.split(r"\*\*Commands\*\*:\n\n((?:\* .*\n)+)", written, maxsplit=1)
    names = re.findall(r"^\* `([^`]+)`", commands, re.MULTILINE)
    linked = ", ".join(f"[`{name}`](#occluscope-{name})" for name in names)
    body = top.replace("# `occluscope`", "# Command line", 1) + f"**Commands**: {linked}\n" + rest
    return re.sub(r"`([^`\n]*)`", lambda code: f"`{html.unescape(code[1])}`", body)


def http_api() -> str:
    """Every operation with its fields and answers, from the document that the service publishes."""
    logging.disable(logging.WARNING)  # the service logs the request made here
    try:
        app = create_app(Settings(database_url="sqlite://", broker_url="redis+socket:///none.sock"))
        document = app.test_client().get("/openapi.json").get_json()
    finally:
        logging.disable(logging.NOTSET)
    parts = [
        "# HTTP API",
        "Written from the service's own OpenAPI 3.1 document, which it publishes at `/openapi.json`.",
        "Every error is an `application/problem+json` document, a [`Problem`](#problem), which names the wrong fields.",
    ]
    for path, operations in document["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in operations.items()]
    parts += ["## Fields", "The objects that requests and answers are made of."]
    parts += [_object(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "\n\n".join(parts)


def _operation(path: str, method: str, operation: Schema) -> str:
    parts = [f"## {method.upper()} {path}", f"{operation.get('summary', '')}. {operation.get('description', '')}"]
    if operation.get("parameters"):
        rows = [
            (f"`{one['name']}`", one["in"], _type(one["schema"]), _description(one, one["schema"]))
            for one in operation["parameters"]
        ]
        parts.append(_table(("parameter", "in", "type", "meaning"), rows))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"Body, `{media}`: {_type(content['schema'])}")
    answers = [
        (status, answer["description"], _contents(answer.get("content", {})))
        for status, answer in operation["responses"].items()
        if status < "400"
    ]
    errors = ", ".join(status for status in operation["responses"] if status >= "400")
    if errors:
        answers.append((errors, "errors", "[`Problem`](#problem)"))
    parts.append(_table(("answer", "", "content"), answers))
    return "\n\n".join(parts)


def _contents(content: Schema) -> str:
    return ", ".join(
        f"{_type(one['schema'])} as `{media}`" if one.get("schema") else f"`{media}`" for media, one in content.items()
    )


def _object(name: str, schema: Schema) -> str:
    parts = [f"### {name}"]
    if "description" in schema:
        parts.append(_prose(schema["description"]))
    if "enum" in schema:
        parts.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".")
    needed = schema.get("required", ())
    rows = [
        (f"`{field}`" + ("" if field in needed else ", optional"), _type(one), _description(one))
        for field, one in schema.get("properties", {}).items()
    ]
    if rows:
        parts.append(_table(("field", "type", "meaning"), rows))
    return "\n\n".join(parts)


def _type(schema: Schema) -> str:
    """A JSON Schema's type in words, with links to the objects it names."""
    match schema:
        case {"$ref": str(path)}:
            name = path.rsplit("/", 1)[1]
            words = f"[`{name}`](#{name.lower()})"
        case {"anyOf": several} | {"oneOf": several} | {"allOf": several}:
            words = " or ".join(dict.fromkeys(_type(one) for one in several))
        case {"const": value}:
            words = f"`{value}`"
        case {"enum": values} if len(values) > MOST_NAMES:
            words = "name"
        case {"enum": values}:
            words = ", ".join(f"`{value}`" for value in values)
        case {"prefixItems": items}:
            words = "[" + ", ".join(_type(one) for one in items) + "]"
        case {"type": "array"}:
            words = f"list of {_type(schema.get('items', {}))}"
        case {"type": "object", "additionalProperties": dict(fields)} if fields:
            words = f"object of {_type(fields)}"
        case {"type": "string", "format": str(form)}:
            words = f"string, {form}"
        case _:
            words = str(schema.get("type", "any"))
    return words


def _description(*schemas: Schema) -> str:
    """What a field means, with its bounds and its default."""
    facts = [next((_prose(one["description"]) for one in schemas if one.get("description")), "")]
    for schema in (schemas[-1], *schemas[-1].get("anyOf", ())):
        facts += [
            f"{words} {schema[key]}"
            for key, words in (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"),
                               ("exclusiveMaximum", "below"))
            if key in schema
        ]  # fmt: skip
    if schemas[-1].get("default") is not None:
        facts.append(f"by default `{_json(schemas[-1]['default'])}`")
    return "; ".join(fact.rstrip(".") for fact in facts if fact)


def all_analyses() -> str:
    """Every analysis with its parameters, results and metrics, from its specification."""
    parts = [
        "# Analyses and their parameters",
        "Written from the analyses' specifications. A running service publishes the same at `/v1/analyses`.",
    ]
    parts += [_analysis(analyses.spec(name)) for name in analyses.names()]
    return "\n\n".join(parts)


def _analysis(spec: AnalysisSpec) -> str:
    schema = spec.parameters.model_json_schema()
    shared = schema.get("$defs", {})
    needed = schema.get("required", ())
    parameters = [
        (f"`{name}`" + (", required" if name in needed else ""), _type(_inlined(one, shared)), _description(one))
        for name, one in schema["properties"].items()
    ]
    results = [(f"`{one.name}`", one.kind, f"{one.title}. {one.description}") for one in spec.results]
    metrics = [(f"`{one.name}`", one.unit or "", f"{one.title}. {one.description}") for one in spec.metrics]
    return "\n\n".join(
        [
            f"## {spec.title}",
            _prose(spec.summary),
            _table(("parameter", "type", "meaning"), parameters),
            _table(("result", "kind", "meaning"), results),
            _table(("metric", "unit", "meaning"), metrics),
        ]
    )


def _inlined(schema: Any, shared: Schema, depth: int = 4) -> Any:
    """The schema with what it refers to put in its place; an object stays an object."""
    if isinstance(schema, list):
        return [_inlined(one, shared, depth) for one in schema]
    if not isinstance(schema, Mapping) or depth == 0:
        return schema
    if "$ref" in schema:
        found = shared[schema["$ref"].rsplit("/", 1)[1]]
        if found.get("type") == "object":
            fields = ", ".join(f"`{name}`" for name in found.get("properties", {}))
            return {"type": f"object of {fields}"}
        return _inlined(found, shared, depth - 1)
    return {key: _inlined(value, shared, depth) for key, value in schema.items()}


def all_settings() -> str:
    """Every setting with its default, from the class that reads them."""
    rows = []
    for name, one in Settings.model_json_schema()["properties"].items():
        default = "none" if one.get("default") is None else f"`{_json(one['default'])}`"
        described = {key: value for key, value in one.items() if key != "default"}
        rows.append((f"`OCCLUSCOPE_{name.upper()}`", default, _type(one), _description(described)))
    return "\n\n".join(
        [
            "# Settings",
            "Read from the environment by every part of the service. Lists are written as JSON.",
            "[Running it](../operations.md#settings) says which matter when.",
            _table(("variable", "default", "type", "meaning"), rows),
        ]
    )


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_without_null(value), ensure_ascii=False)


def _without_null(value: Any) -> Any:
    """The value without fields that are not set."""
    if isinstance(value, list | tuple):
        return [_without_null(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _without_null(one) for key, one in value.items() if one is not None}
    return value


def _prose(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split()))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = tuple(head)
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
