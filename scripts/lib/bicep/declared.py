"""Types that templates declare themselves: what a parameter or output holds, as far as a look tells."""

from dataclasses import dataclass, field
from pathlib import Path

from .functions import Runtime
from .syntax import File, Node

BASICS = ("string", "int", "bool", "object", "array", "any")


@dataclass
class Kind:
    """`form`: basic, literal, union, array, object, any, or unknown (a name that is nowhere)."""

    form: str
    name: object = None
    parts: list["Kind"] = field(default_factory=list)
    properties: dict[str, "Kind"] = field(default_factory=dict)
    optional: bool = False
    open_ended: bool = False


def kind_of(node: Node | None, file: File, files: dict[Path, File]) -> Kind:
    return build(node.parts[0], node.parts[1], file, files) if node is not None else Kind("any")


def build(node, reader, file: File, files: dict[Path, File]) -> Kind:
    named = [child for child in node.named_children if child.type not in ("comment", "decorators")]
    match node.type:
        case "type" | "parenthesized_type" if named:
            return build(named[0], reader, file, files)
        case "nullable_type":
            made = build(named[0], reader, file, files)
            return Kind(made.form, made.name, made.parts, made.properties, True, made.open_ended)
        case "array_type":
            return Kind("array", parts=[build(named[0], reader, file, files)])
        case "union_type":
            return Kind("union", parts=[build(child, reader, file, files) for child in named])
        case "string":
            return Kind("literal", reader.text(node).value)
        case "number":
            return Kind("literal", int(node.text))
        case "object":
            properties = {}
            for item in node.named_children:
                if item.type == "object_property":
                    inner = [child for child in item.named_children if child.type not in ("comment", "decorators")]
                    properties[inner[0].text.decode()] = build(inner[-1], reader, file, files)
            return Kind("object", properties=properties, open_ended="*" in node.text.decode())
    name = node.text.decode()
    if name in BASICS:
        return Kind("any" if name in ("any", "object") else "basic", name)
    path, line_of_import = (file.imports[name][0], file) if name in file.imports else ("", file)
    home = files.get((file.path.parent / path).resolve()) if path else line_of_import
    known = home.declarations.get(name) if home else None
    if known is None or known.kind != "type":
        return Kind("unknown", name)
    return kind_of(known.type, home, files)


def unknown(kind: Kind) -> list[str]:
    """Names of types in it that are nowhere."""
    inner = [*kind.parts, *kind.properties.values()]
    return ([str(kind.name)] if kind.form == "unknown" else []) + [name for one in inner for name in unknown(one)]


def problems(kind: Kind, value, path: str) -> list[str]:
    """What is wrong with a value that was worked out."""
    if isinstance(value, Runtime) or (isinstance(value, str) and "‹" in value) or (value is None and kind.optional):
        return []
    match kind.form:
        case "basic":
            proper = {"string": str, "int": int, "bool": bool, "array": list}[str(kind.name)]
            if not isinstance(value, proper) or (kind.name == "int" and isinstance(value, bool)):
                return [f"{path} is {value!r}, and must be of type {kind.name}"]
        case "literal" if value != kind.name:
            return [f"{path} is {value!r}, and must be {kind.name!r}"]
        case "union" if all(problems(part, value, path) for part in kind.parts):
            return [f"{path} is {value!r}, and must be one of {', '.join(repr(part.name) for part in kind.parts)}"]
        case "array":
            if not isinstance(value, list):
                return [f"{path} is {value!r}, and must be an array"]
            return [problem for index, item in enumerate(value) for problem in problems(kind.parts[0], item, f"{path}[{index}]")]
        case "object":
            if not isinstance(value, dict):
                return [f"{path} is {value!r}, and must be an object"]
            found = [f"{path} has no property {name}" for name in value if name not in kind.properties and not kind.open_ended]
            for name, inner in kind.properties.items():
                if name not in value:
                    found += [] if inner.optional else [f"{path} needs {name}"]
                else:
                    found += problems(inner, value[name], f"{path}.{name}")
            return found
    return []
