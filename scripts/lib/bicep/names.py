"""Names: what is used is declared, what is declared is used, and files agree about parameters and outputs."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from .declared import kind_of, unknown
from .functions import FUNCTIONS, FURTHER
from .schema import basic, declared, near
from .syntax import Declaration, File, Finding, Node

FUNCTION_NAMES = set(FUNCTIONS) | FURTHER
DECORATORS = {"allowed", "batchSize", "description", "discriminator", "export", "maxLength", "maxValue", "metadata", "minLength", "minValue", "sealed", "secure"}
SECRET = re.compile("password|pwd|secret|accountkey|acctkey", re.I)
NO_SECRET = re.compile("secret(permissions|version|ur[il]|name)", re.I)
KEPT = {"parent", "scope", "dependsOn", "name", "params", "identity"}


@dataclass
class Names:
    files: dict[Path, File]
    file: File
    findings: list[Finding] = field(default_factory=list)

    def find(self, rule: str, line: int, message: str) -> None:
        self.findings.append(Finding(self.file.name, line, rule, message))

    def check(self) -> None:
        for name, (path, _, line) in self.file.imports.items():
            other = self.files.get((self.file.path.parent / path).resolve())
            found = other.declarations.get(name) if other else None
            if found is None or "export" not in found.decorators:
                self.find("names", line, f"{path} exports no {name}")
        everything = [*self.file.declarations.values(), *self.file.outputs.values()]
        for declaration in everything:
            self.described(declaration)
            self.secured(declaration)
            if declaration.type is not None:
                self.types(declaration)
            for node in filter(None, (declaration.value, declaration.condition)):
                local = set(declaration.loop.value) if declaration.loop else set()
                if declaration.kind == "func":
                    local = set(declaration.parameters)
                self.walk(node, local)
            if declaration.loop is not None:
                self.walk(declaration.loop.parts[0], set())
            if declaration.kind in ("resource", "module"):
                self.start(declaration)
            if declaration.kind == "module":
                self.module(declaration)
        for declaration in self.file.declarations.values():
            if declaration.kind in ("param", "var") and not declaration.used and not self.file.using:
                self.find("unused", declaration.line, f"nothing uses the {declaration.kind} {declaration.name}")

    def described(self, declaration: Declaration) -> None:
        for name, call in declaration.decorators.items():
            if name not in DECORATORS:
                self.find("names", call.line, f"there is no decorator @{name}{near(name, DECORATORS)}")
        if declaration.kind in ("param", "output", "type") and not self.file.using:
            call = declaration.decorators.get("description")
            text = call.parts[1].value if call is not None and len(call.parts) > 1 else ""
            if not text or not str(text).strip():
                self.find("described", declaration.line, f"the {declaration.kind} {declaration.name} has no @description")
        if declaration.kind == "output" and declaration.type is None:
            self.find("described", declaration.line, f"the output {declaration.name} has no type")

    def secured(self, declaration: Declaration) -> None:
        """As the compiler's `secure-secrets-in-params`: what is called a secret, and is none of the names of one, is kept secret."""
        if declaration.kind != "param" or self.file.using or "secure" in declaration.decorators or declared(declaration) not in ("string", "object"):
            return
        if SECRET.search(declaration.name) and not NO_SECRET.search(declaration.name):
            self.find("secure", declaration.line, f"{declaration.name} is called a secret: @secure(), or a name that says what it is (…SecretName)")

    def types(self, declaration: Declaration) -> None:
        for name in unknown(kind_of(declaration.type, self.file, self.files)):
            self.find("names", declaration.line, f"there is no type {name}")
        found, wanted = basic(declaration.value) if declaration.value and declaration.kind in ("param", "output") else "", declared(declaration)
        if found and wanted and found != wanted:
            self.find("value", declaration.line, f"{declaration.name} is declared {wanted} and is {found}")

    def walk(self, node: Node, local: set[str]) -> None:
        match node.kind:
            case "name":
                if node.value in local:
                    return
                known = self.file.declarations.get(str(node.value))
                if known is None:
                    self.find("names", node.line, f"there is no {node.value}{near(str(node.value), self.file.declarations)}")
                else:
                    known.used = True
                return
            case "call":
                owner, *arguments = node.parts
                if owner is not None and not (owner.kind == "name" and owner.value in ("az", "sys")):
                    self.walk(owner, local)
                elif owner is None and node.value not in FUNCTION_NAMES and not self.is_function(str(node.value)):
                    self.find("names", node.line, f"there is no function {node.value}{near(str(node.value), FUNCTION_NAMES)}")
                for argument in arguments:
                    self.walk(argument, local)
                return
            case "lambda":
                self.walk(node.parts[0], local | set(node.value))
                return
            case "for":
                self.walk(node.parts[0], local)
                self.walk(node.parts[1], local | set(node.value))
                return
            case "object":
                for item in node.parts:
                    if isinstance(item.key, Node):
                        self.walk(item.key, local)
                    self.walk(item.value, local)
                return
            case "member":
                self.outputs(node)
        for part in node.parts:
            if isinstance(part, Node):
                self.walk(part, local)

    def start(self, declaration: Declaration) -> None:
        """Names, conditions, scopes and loops are worked out before anything is deployed."""
        asked = [("a name", item.value) for item in declaration.value.parts if item.key == "name"]
        asked += [("a scope", item.value) for item in declaration.value.parts if item.key == "scope"]
        if declaration.condition is not None:
            asked.append(("a condition", declaration.condition))
        if declaration.loop is not None:
            asked.append(("what is looped over", declaration.loop.parts[0]))
        for what, node in asked:
            late = self.late(node, set())
            if late is not None:
                self.find("start", node.line, f"{what} must be known before the deployment, and {late} is not")

    def late(self, node: Node, seen: set[str]) -> str | None:
        """What in an expression is known only once something is deployed."""
        if node.kind == "member":
            base = node.parts[0]
            while base.kind == "index":
                base = base.parts[0]
            known = self.file.declarations.get(str(base.value)) if base.kind == "name" else None
            if known is not None and known.kind == "resource":
                return None if node.value in ("id", "name", "type", "apiVersion") else f"{known.name}.{node.value}"
            if known is not None and known.kind == "module" and node.value == "outputs":
                return f"{known.name}.outputs"
        if node.kind == "name":
            known = self.file.declarations.get(str(node.value))
            if known is not None and known.kind == "var" and known.name not in seen:
                return self.late(known.value, seen | {known.name})
        for part in node.parts:
            inner = part.value if hasattr(part, "key") else part
            if isinstance(inner, Node) and (found := self.late(inner, seen)):
                return found
        return None

    def is_function(self, name: str) -> bool:
        known = self.file.declarations.get(name)
        return known is not None and known.kind == "func"

    def outputs(self, node: Node) -> None:
        """`module.outputs.name`: whether that module has it."""
        owner = node.parts[0]
        if not (owner.kind == "member" and owner.value == "outputs"):
            return
        base = owner.parts[0]
        while base.kind == "index":
            base = base.parts[0]
        module = self.file.declarations.get(str(base.value)) if base.kind == "name" else None
        if module is None or module.kind != "module":
            return
        other = self.files.get((self.file.path.parent / module.target).resolve())
        if other is not None and node.value not in other.outputs:
            self.find("outputs", node.line, f"{module.target} has no output {node.value}{near(str(node.value), other.outputs)}")

    def module(self, declaration: Declaration) -> None:
        other = self.files.get((self.file.path.parent / declaration.target).resolve())
        if other is None:
            self.find("modules", declaration.line, f"there is no {declaration.target}")
            return
        stated = {item.key: item for item in declaration.value.parts if isinstance(item.key, str)}
        for name, item in stated.items():
            if name not in KEPT:
                self.find("property", item.line, f"a module has no property {name}{near(name, KEPT)}")
        if self.file.scope != other.scope and "scope" not in stated:
            self.find("nesting", declaration.line, f"{declaration.target} is for a {other.scope}: give it a `scope`")
        given = {}
        if "params" in stated and stated["params"].value.kind == "object":
            given = {item.key: item for item in stated["params"].value.parts if isinstance(item.key, str)}
        parameters = {parameter.name: parameter for parameter in other.of("param")}
        for name, item in given.items():
            parameter = parameters.get(name)
            if parameter is None:
                self.find("parameters", item.line, f"{declaration.target} has no parameter {name}{near(name, parameters)}")
                continue
            found, wanted = self.kind(item.value), declared(parameter)
            if found and wanted and found != wanted:
                self.find("parameters", item.line, f"{name} of {declaration.target} is {wanted}, not {found}")
        for name, parameter in parameters.items():
            if name not in given and parameter.value is None and not str(parameter.type.value if parameter.type else "").endswith("?"):
                self.find("parameters", declaration.line, f"{declaration.target} needs the parameter {name}")

    def kind(self, node: Node) -> str:
        if node.kind == "name":
            known = self.file.declarations.get(str(node.value))
            if known is not None:
                return declared(known) if known.kind == "param" else basic(known.value) if known.kind == "var" else ""
        return basic(node)


def parameter_file(file: File, template: File | None) -> list[Finding]:
    """Types of what a parameter file states; the evaluator sees to names and limits."""
    found = []
    for stated in file.of("var"):
        parameter = template.declarations.get(stated.name) if template else None
        if parameter is None or parameter.kind != "param":
            continue
        given, wanted = basic(stated.value), declared(parameter)
        if given and wanted and given != wanted:
            found.append(Finding(file.name, stated.line, "parameters", f"{stated.name} is {wanted}, not {given}"))
    return found


