"""Resource types: whether bodies have the properties, values and nesting that Azure's own schemas ask for."""

import difflib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from .evaluate import Deployed
from .functions import Runtime
from .syntax import Declaration, File, Finding, Node

REQUIRED, READ_ONLY = 1, 2
# What the language adds to every body.
OURS = {"parent", "scope", "dependsOn"}
BASIC = {"StringType": "string", "StringLiteralType": "string", "IntegerType": "int", "BooleanType": "bool", "ObjectType": "object",
         "DiscriminatedObjectType": "object", "ArrayType": "array"}
SCOPES = {"subscription": 4, "resourceGroup": 8}


class Types:
    """The types file: `resources` by Type@version, and the list that references point into."""

    def __init__(self, path: Path):
        content = json.loads(path.read_text())
        self.types = content["types"]
        self.resources = {name.lower(): (name, reference) for name, reference in content["resources"].items()}
        self.versions: dict[str, list[str]] = {}
        for name in content["resources"]:
            kind, version = name.split("@")
            self.versions.setdefault(kind.lower(), []).append(version)

    def at(self, reference: dict) -> dict:
        return self.types[int(reference["$ref"].removeprefix("#/"))]

    def resource(self, target: str) -> dict | None:
        found = self.resources.get(target.lower())
        return self.at(found[1]) if found else None

    def basics(self, kind: dict) -> set[str]:
        if kind["$type"] == "UnionType":
            return set().union(*(self.basics(self.at(element)) for element in kind["elements"]))
        basic = BASIC.get(kind["$type"])
        return {basic} if basic else {"string", "int", "bool", "object", "array"}

    def literals(self, kind: dict) -> list[str]:
        """The values that are named, if any are."""
        if kind["$type"] == "StringLiteralType":
            return [kind["value"]]
        if kind["$type"] == "UnionType":
            return [value for element in kind["elements"] for value in self.literals(self.at(element))]
        return []

    def properties(self, kind: dict, chosen: str | None) -> tuple[dict, bool]:
        """Properties by name, and whether there may be others."""
        if kind["$type"] == "ObjectType":
            return kind.get("properties", {}), "additionalProperties" in kind
        found = dict(kind.get("baseProperties", {}))
        element = kind["elements"].get(chosen) if chosen else None
        if element is None:
            return found | {kind["discriminator"]: None}, True
        inner, open_ended = self.properties(self.at(element), None)
        return found | inner, open_ended


def near(name: str, names) -> str:
    found = difflib.get_close_matches(name, [str(one) for one in names], 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""


@dataclass
class Check:
    """Walks what files state, before anything is worked out: all branches, with exact lines."""

    types: Types
    file: File
    findings: list[Finding] = field(default_factory=list)
    following: set = field(default_factory=set)
    told: list = field(default_factory=list)

    def find(self, rule: str, line: int, message: str) -> None:
        self.findings.append(Finding(self.file.name, line, rule, message))

    def resource(self, declaration: Declaration) -> None:
        type_name, _, version = declaration.target.partition("@")
        versions = self.types.versions.get(type_name.lower())
        if versions is None:
            self.find("type", declaration.line, f"there is no resource type {type_name}{near(type_name, (name.split('@')[0] for name, _ in self.types.resources.values()))}")
            return
        kind = self.types.resource(declaration.target)
        if kind is None:
            self.find("api-version", declaration.line, f"{type_name} has no version {version} here; there are {', '.join(versions)}")
            return
        proper = self.types.resources[declaration.target.lower()][0]
        if proper != declaration.target:
            self.find("type", declaration.line, f"{declaration.target} is spelt {proper}")
        self.nesting(declaration, type_name, kind)
        if declaration.existing:
            for item in declaration.value.parts:
                if item.key not in OURS | {"name"}:
                    self.find("property", item.line, f"an existing resource takes no {item.key}")
            return
        self.value(declaration.value, self.types.at(kind["body"]), declaration.name, top=True)

    def accesses(self) -> None:
        """Properties that are asked of resources: `server.properties.fullyQualifiedDomainName`."""
        for declaration in [*self.file.declarations.values(), *self.file.outputs.values()]:
            for node in (declaration.value, declaration.condition):
                if node is not None:
                    self.access(node)

    def access(self, node: Node) -> None:
        if node.kind == "member":
            self.asked(node)
        for part in node.parts:
            inner = part.value if hasattr(part, "key") else part
            if isinstance(inner, Node):
                self.access(inner)

    def asked(self, node: Node) -> dict | None:
        """The type of what a chain of members comes to, if it begins with a resource."""
        base = node.parts[0]
        if base.kind == "index":
            base = base.parts[0]
        if base.kind == "name":
            known = self.file.declarations.get(str(base.value))
            kind = self.types.resource(known.target) if known is not None and known.kind == "resource" else None
            if kind is None or node.value in ("id", "name", "type", "apiVersion"):
                return None
            owner = self.types.at(kind["body"])
        elif base.kind == "member":
            owner = self.asked(base)
        else:
            return None
        if owner is None or not owner["$type"].endswith("ObjectType"):
            return None
        properties, open_ended = self.types.properties(owner, None)
        known = properties.get(node.value)
        if known is None and not open_ended and node not in self.told:
            self.told.append(node)
            self.find("property", node.line, f"there is no property {node.value} to ask for{near(str(node.value), properties)}")
        return self.types.at(known["type"]) if known else None

    def nesting(self, declaration: Declaration, type_name: str, kind: dict) -> None:
        depth = type_name.count("/")
        stated = {item.key: item for item in declaration.value.parts if isinstance(item.key, str)}
        scopes = kind.get("writableScopes", 8)
        if "parent" in stated:
            parent = stated["parent"].value
            while parent.kind == "index":
                parent = parent.parts[0]
            owner = self.file.declarations.get(str(parent.value)) if parent.kind == "name" else None
            if owner is None or owner.kind != "resource":
                self.find("nesting", stated["parent"].line, "parent must be a resource of this file")
            elif owner.target.split("@")[0].lower() != type_name.rsplit("/", 1)[0].lower():
                self.find("nesting", stated["parent"].line, f"{type_name} does not lie below {owner.target.split('@')[0]}")
        elif depth > 1:
            name = stated.get("name")
            if not (name and name.value.kind == "text" and shown(name.value).count("/") == depth - 1):
                self.find("nesting", declaration.line, f"{type_name} needs `parent`")
        elif "scope" not in stated and scopes != 31 and not scopes & SCOPES.get(self.file.scope, 8):
            self.find("nesting", declaration.line, f"{type_name} cannot be deployed to a {self.file.scope}")

    def value(self, node: Node, kind: dict, path: str, top: bool = False, partial: bool = False) -> None:
        match node.kind:
            case "choose":
                self.value(node.parts[1], kind, path, top, partial)
                self.value(node.parts[2], kind, path, top, partial)
                return
            case "call":
                self.call(node, kind, path, top)
                return
            case "name":
                self.name(node, kind, path, partial)
                return
            case "for" if kind["$type"] == "ArrayType":
                self.value(node.parts[1], self.types.at(kind["itemType"]), f"{path}[]")
                return
            case "if":
                self.value(node.parts[1], kind, path, top, partial)
                return
            case "literal" if node.value is None:
                return
        found = basic(node)
        allowed = self.types.basics(kind)
        if found and found not in allowed:
            self.find("value", node.line, f"{path} takes {' or '.join(sorted(allowed))}, not {found}")
            return
        if node.kind == "text" and isinstance(node.value, str):
            literals = self.types.literals(kind)
            if literals and node.value not in literals:
                self.find("literal", node.line, f"{path}: {node.value!r} is none of {few(literals)}{near(node.value, literals)}")
        elif node.kind == "array" and kind["$type"] == "ArrayType":
            for part in node.parts:
                self.value(part, self.types.at(kind["itemType"]), f"{path}[]")
        elif node.kind == "object":
            self.object(node, kind, path, top, partial)

    def object(self, node: Node, kind: dict, path: str, top: bool, partial: bool) -> None:
        if kind["$type"] == "UnionType":
            kind = next((one for one in map(self.types.at, kind["elements"]) if one["$type"].endswith("ObjectType")), kind)
        if not kind["$type"].endswith("ObjectType"):
            return
        stated = {item.key: item for item in node.parts if isinstance(item.key, str)}
        computed = any(not isinstance(item.key, str) for item in node.parts)
        chosen = None
        if kind["$type"] == "DiscriminatedObjectType":
            choice = stated.get(kind["discriminator"])
            if choice is None and not partial:
                self.find("required", node.line, f"{path} needs {kind['discriminator']}")
            elif choice is not None and choice.value.kind == "text":
                chosen = choice.value.value
                if isinstance(chosen, str) and chosen not in kind["elements"]:
                    self.find("literal", choice.line, f"{path}.{kind['discriminator']}: {chosen!r} is none of {few(kind['elements'])}{near(chosen, kind['elements'])}")
        properties, open_ended = self.types.properties(kind, chosen)
        for name, item in stated.items():
            if top and name in OURS:
                continue
            known = properties.get(name)
            if known is None:
                if not open_ended and name not in properties:
                    self.find("property", item.line, f"{path} has no property {name}{near(name, properties)}")
                elif "additionalProperties" in kind:
                    self.value(item.value, self.types.at(kind["additionalProperties"]), f"{path}.{name}")
                continue
            if known["flags"] & READ_ONLY and not known["flags"] & REQUIRED:
                self.find("read-only", item.line, f"{path}.{name} is set by Azure and cannot be stated")
                continue
            self.value(item.value, self.types.at(known["type"]), f"{path}.{name}")
        if not computed and not partial:
            for name, known in properties.items():
                if known and known["flags"] & REQUIRED and not known["flags"] & READ_ONLY and name not in stated:
                    self.find("required", node.line, f"{path} needs {name}")

    def call(self, node: Node, kind: dict, path: str, top: bool) -> None:
        arguments = node.parts[1:]
        if node.value == "union":
            for argument in arguments:
                self.value(argument, kind, path, top, partial=True)
        elif node.value == "concat" and kind["$type"] == "ArrayType":
            for argument in arguments:
                self.value(argument, kind, path)
        elif node.value == "map" and kind["$type"] == "ArrayType" and arguments[-1].kind == "lambda":
            self.value(arguments[-1].parts[0], self.types.at(kind["itemType"]), f"{path}[]")
        else:
            found, allowed = basic(node), self.types.basics(kind)
            if found and found not in allowed:
                self.find("value", node.line, f"{path} takes {' or '.join(sorted(allowed))}, not {found}")

    def name(self, node: Node, kind: dict, path: str, partial: bool) -> None:
        declaration = self.file.declarations.get(str(node.value))
        if declaration is None or (declaration.name, path) in self.following:
            return
        if declaration.kind == "var":
            self.following.add((declaration.name, path))
            self.value(declaration.value, kind, path, partial=partial)
        elif declaration.kind == "param" and declaration.type is not None:
            found, allowed = declared(declaration), self.types.basics(kind)
            if found and found not in allowed:
                self.find("value", node.line, f"{path} takes {' or '.join(sorted(allowed))}; the parameter {declaration.name} is {found}")


def shown(node: Node) -> str:
    return node.value if isinstance(node.value, str) else "".join(part if isinstance(part, str) else "x" for part in node.parts)


def few(values) -> str:
    values = list(values)
    return ", ".join(map(repr, values[:12])) + (" …" if len(values) > 12 else "")


RETURNS = {"string": "string", "toLower": "string", "toUpper": "string", "guid": "string", "uniqueString": "string", "replace": "string", "join": "string",
           "subscriptionResourceId": "string", "resourceId": "string", "cidrSubnet": "string", "int": "int", "length": "int", "empty": "bool",
           "contains": "bool", "bool": "bool", "items": "array", "map": "array", "filter": "array", "flatten": "array", "toObject": "object"}


def basic(node: Node) -> str:
    """What kind of value a node is for certain; else empty."""
    match node.kind:
        case "text":
            return "string"
        case "array" | "for":
            return "array"
        case "object":
            return "object"
        case "literal":
            return "" if node.value is None else "bool" if isinstance(node.value, bool) else "int"
        case "call":
            return RETURNS.get(str(node.value), "")
        case "binary":
            return "bool" if node.value in ("==", "!=", "&&", "||", "<", ">", "<=", ">=", "=~") else "int" if node.value in ("+", "-", "*", "/", "%") else ""
        case "unary":
            return "bool" if node.value == "!" else "int"
    return ""


def declared(declaration: Declaration) -> str:
    """The kind of value a parameter or output is declared to hold; empty if that needs more than a look."""
    text = str(declaration.type.value).rstrip("?") if declaration.type else ""
    if text.endswith("[]"):
        return "array"
    if text.startswith("'"):
        return "string"
    if text.startswith("{"):
        return "object"
    return text if text in ("string", "int", "bool", "object", "array") else ""


def body(types: Types, made: Deployed, finding) -> None:
    """The same for a body that was worked out: values that came through parameters, and what is missing."""
    kind = types.resource(f"{made.type}@{made.version}")
    if kind is not None:
        _value(types, made.body, types.at(kind["body"]), made.declaration.name, finding)


def limits(kind: dict, value) -> str:
    """Lengths, patterns and ranges that a type states."""
    if kind["$type"] == "StringType" and isinstance(value, str):
        if not kind.get("minLength", 0) <= len(value) <= kind.get("maxLength", len(value)):
            return f"it has {len(value)} characters, and must have {kind.get('minLength', 0)} to {kind.get('maxLength', 'any number')}"
        if "pattern" in kind and not re.search(kind["pattern"], value):
            return f"it must match {kind['pattern']}"
    if kind["$type"] == "IntegerType" and isinstance(value, int):
        if not kind.get("minValue", value) <= value <= kind.get("maxValue", value):
            return f"it must be from {kind.get('minValue', 'anything')} to {kind.get('maxValue', 'anything')}"
    return ""


def _value(types: Types, value, kind: dict, path: str, finding) -> None:
    if value is None or isinstance(value, Runtime) or (isinstance(value, str) and "‹" in value):
        return
    found = "bool" if isinstance(value, bool) else {str: "string", int: "int", dict: "object", list: "array"}.get(type(value), "")
    if found and found not in types.basics(kind):
        finding(path, "value", f"{path} takes {' or '.join(sorted(types.basics(kind)))}, not {found} ({value!r})")
        return
    problem = limits(kind, value)
    if problem:
        finding(path, "value", f"{path} is {value!r}: {problem}")
    if isinstance(value, str):
        literals = types.literals(kind)
        if literals and value not in literals:
            finding(path, "literal", f"{path}: {value!r} is none of {few(literals)}{near(value, literals)}")
    elif isinstance(value, list) and kind["$type"] == "ArrayType":
        for item in value:
            _value(types, item, types.at(kind["itemType"]), f"{path}[]", finding)
    elif isinstance(value, dict) and kind["$type"].endswith("ObjectType"):
        chosen = value.get(kind["discriminator"]) if kind["$type"] == "DiscriminatedObjectType" else None
        properties, open_ended = types.properties(kind, chosen)
        for name, item in value.items():
            known = properties.get(name)
            if known is None:
                if not open_ended and name not in properties:
                    finding(path, "property", f"{path} has no property {name}{near(name, properties)}")
                elif "additionalProperties" in kind:
                    _value(types, item, types.at(kind["additionalProperties"]), f"{path}.{name}", finding)
            elif not known["flags"] & READ_ONLY or known["flags"] & REQUIRED:
                _value(types, item, types.at(known["type"]), f"{path}.{name}", finding)
        for name, known in properties.items():
            if known and known["flags"] & REQUIRED and not known["flags"] & READ_ONLY and value.get(name) is None:
                finding(path, "required", f"{path} needs {name}")
