"""Writes the reference page of the configuration from the fields' docstrings."""

import ast
import inspect
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from edgeproxy.config.root import Config

HEAD = """# Configuration

Made from the source by `make docs`. Unknown keys are refused; `edgeproxy check FILE` tells every fault with its line.
"""


def docstrings(kind: type) -> dict[str, str]:
    """Return the docstring below each field of `kind`."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = ast.literal_eval(text.value)
    return found


def bounds(kind: Any) -> str:
    """Return what values `kind` takes."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        base, *metas = typing.get_args(kind)
        meta = next(m for m in metas if isinstance(m, msgspec.Meta))
        low = meta.ge if meta.ge is not None else f"more than {meta.gt}" if meta.gt is not None else None
        spread = f"{low} to {meta.le}" if meta.le is not None else f"at least {low}" if low is not None else ""
        return " ".join(filter(None, [bounds(base), spread]))
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(kind))
    if origin is dict:
        return "table"
    if origin in (list, tuple):
        return "list of " + ", then ".join(bounds(part) for part in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(bounds(part) for part in typing.get_args(kind) if part is not type(None))
    return {str: "text", int: "integer", float: "number", bool: "`true` or `false`"}.get(kind, str(kind))


def default(field: Any) -> str:
    """Return a field's default as the file would write it."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "none" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def table(kind: type, path: str) -> list[str]:
    """Return the lines of one table and those below it."""
    texts, below, rows = docstrings(kind), [], []
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        origin = typing.get_origin(hint)
        inner = typing.get_args(hint)[-1] if origin in (dict, list) else hint
        # A table that may be left out is one all the same.
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(parts) == 1 and type(None) in typing.get_args(hint):
            inner = parts[0]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            name = ".".join(filter(None, [path, field.name, "NAME" if origin is dict else ""]))
            below += ["", f"## `[[{name}]]`" if origin is list else f"## `[{name}]`", "", texts[field.name], "", *table(inner, name)]
        else:
            rows.append(f"| `{field.name}` | {bounds(hint)} | {default(field)} | {texts[field.name]} |")
    head = ["| key | values | default | meaning |", "|---|---|---|---|"] if rows else []
    return [*head, *rows, *below]


def main() -> None:
    """Print the page, or write it to the file named."""
    page = HEAD + "\n".join(table(Config, "")) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page)
    else:
        sys.stdout.write(page)


if __name__ == "__main__":
    main()
