"""What a parameter file makes of the templates: every expression worked out, every resource with its final body.

What only Azure knows (a property of a deployed resource) becomes a `Runtime`: a text that says what it stands for.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from .functions import FUNCTIONS, SUBSCRIPTION, Runtime, shown
from .syntax import Declaration, File, Finding, Node

class Failure(Exception):
    def __init__(self, node: Node, rule: str, message: str):
        super().__init__(message)
        self.node, self.rule, self.message = node, rule, message


@dataclass
class Deployed:
    """A resource as it goes to Azure."""

    file: File
    declaration: Declaration
    type: str
    version: str
    body: dict
    id: str
    exists: bool = True  # false: its condition does not hold
    scope: str = ""

    def member(self, name: str, node: Node):
        if name in ("id", "name", "type", "location", "tags"):
            return {"id": self.id, "type": self.type}.get(name, self.body.get(name, Runtime(f"‹{self.declaration.name}.{name}›")))
        if not self.exists:
            raise Failure(node, "condition", f"{self.declaration.name} is not deployed here, but its {name} is asked for")
        return Runtime(f"‹{self.declaration.name}.{name}›")


@dataclass
class Instance:
    """A module as it is deployed once."""

    declaration: Declaration
    outputs: dict | None


@dataclass
class Scope:
    """One file with its parameters."""

    world: "World"
    file: File
    parameters: dict
    group: str
    known: dict = field(default_factory=dict)
    busy: set = field(default_factory=set)

    def value(self, name: str, node: Node):
        if name in self.known:
            return self.known[name]
        declaration = self.file.declarations.get(name)
        if declaration is None:
            raise Failure(node, "names", f"there is no {name}")
        if name in self.busy:
            raise Failure(node, "names", f"{name} needs itself")
        self.busy.add(name)
        if declaration.kind == "param":
            made = self.parameters[name] if name in self.parameters else self.evaluate(declaration.value, {}) if declaration.value else Runtime(f"‹{name}›")
        elif declaration.kind == "var":
            made = self.evaluate(declaration.value, {})
        else:
            made = self.deploy(declaration)
        self.busy.discard(name)
        self.known[name] = made
        return made

    def deploy(self, declaration: Declaration):
        if declaration.loop is None:
            return self.one(declaration, {})
        names, (source, _) = declaration.loop.value, declaration.loop.parts
        made = []
        for index, item in enumerate(self.sequence(source, {})):
            made.append(self.one(declaration, dict(zip(names, (item, index)))))
        return made

    def sequence(self, node: Node, local: dict) -> list:
        items = self.evaluate(node, local)
        if isinstance(items, Runtime):
            return []
        if not isinstance(items, list):
            raise Failure(node, "types", "a loop needs an array")
        return items

    def one(self, declaration: Declaration, local: dict):
        exists = declaration.condition is None or bool(self.evaluate(declaration.condition, local))
        if declaration.kind == "module":
            return self.module(declaration, local, exists)
        type_name, _, version = declaration.target.partition("@")
        body, parent, scope = {}, None, ""
        for item in declaration.value.parts:
            if item.key == "dependsOn":
                continue
            if item.key == "parent":
                parent = self.evaluate(item.value, local)
            elif item.key == "scope":
                target = self.evaluate(item.value, local)
                scope = target.id if isinstance(target, Deployed) else str(target)
            elif exists or item.key == "name":
                # What is not deployed is not worked out: it may ask for what is not there either.
                key = item.key if isinstance(item.key, str) else self.evaluate(item.key, local)
                body[key] = self.evaluate(item.value, local)
        name = body.get("name", "")
        if parent is not None and isinstance(parent, Deployed):
            identity = f"{parent.id}/{type_name.rsplit('/', 1)[1]}/{name}"
        else:
            base = scope or (f"{SUBSCRIPTION}/resourceGroups/{self.group}" if self.group else SUBSCRIPTION)
            pairs = zip(type_name.split("/")[1:], str(name).split("/"))
            identity = f"{base}/providers/{type_name.split('/')[0]}" + "".join(f"/{kind}/{part}" for kind, part in pairs)
        if type_name == "Microsoft.Resources/resourceGroups":
            identity = f"{SUBSCRIPTION}/resourceGroups/{name}"
        made = Deployed(self.file, declaration, type_name, version, body, identity, exists, scope)
        if exists and not declaration.existing:
            self.world.resources.append(made)
        return made

    def module(self, declaration: Declaration, local: dict, exists: bool) -> Instance:
        if not exists:
            return Instance(declaration, None)
        group, parameters = self.group, {}
        for item in declaration.value.parts:
            if item.key == "scope":
                target = self.evaluate(item.value, local)
                group = str(target.body.get("name", "")) if isinstance(target, Deployed) else str(target)
            if item.key == "params":
                parameters = self.evaluate(item.value, local)
        file = self.world.files.get((self.file.path.parent / declaration.target).resolve())
        if file is None:
            raise Failure(declaration.value, "modules", f"there is no {declaration.target}")
        # null for a parameter stands for its default.
        parameters = {name: value for name, value in parameters.items() if value is not None} if isinstance(parameters, dict) else {}
        scope = Scope(self.world, file, parameters, group)
        scope.check_parameters(declaration, self.file)
        return Instance(declaration, scope.run())

    def check_parameters(self, at: Declaration, caller: File) -> None:
        """Limits that decorators state, for values that come from outside."""
        for parameter in self.file.of("param"):
            if parameter.name in self.parameters:
                self.world.held.append((self.file, parameter.name, self.parameters[parameter.name], None))
                self.limits(parameter, self.parameters[parameter.name], caller, at.line)

    def limits(self, parameter: Declaration, value, file: File, line: int) -> None:
        if isinstance(value, Runtime):
            return
        stated = {name: call.parts[1] for name, call in parameter.decorators.items() if len(call.parts) > 1}
        problem = ""
        if "allowed" in stated:
            allowed = [item.value for item in stated["allowed"].parts]
            for one in value if isinstance(value, list) else [value]:
                if one not in allowed:
                    problem = f"{one!r} is none of {', '.join(map(repr, allowed))}"
        size = len(value) if isinstance(value, (str, list)) else value
        for name, below in (("minLength", True), ("maxLength", False), ("minValue", True), ("maxValue", False)):
            if name in stated and isinstance(size, int) and (size < stated[name].value if below else size > stated[name].value):
                problem = f"{value!r} is {'below' if below else 'above'} {name} {stated[name].value}"
        if problem:
            self.world.findings.append(Finding(file.name, line, "parameters", f"{parameter.name} of {self.file.name}: {problem}"))

    def run(self) -> dict:
        """Deploys everything in the file; gives its outputs."""
        for declaration in self.file.declarations.values():
            if declaration.kind in ("resource", "module"):
                self.guarded(lambda d=declaration: self.value(d.name, d.value), declaration.line)
        made = {name: self.guarded(lambda o=output: self.evaluate(o.value, {}), output.line) for name, output in self.file.outputs.items()}
        self.world.held += [(self.file, name, value, self.file.outputs[name].line) for name, value in made.items()]
        return made

    def guarded(self, work, line: int):
        try:
            return work()
        except Failure as failure:
            where = failure.node.line if failure.node else line
            self.world.findings.append(Finding(self.file.name, where, failure.rule, failure.message))
        except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
            self.world.findings.append(Finding(self.file.name, line, "evaluate", f"cannot be worked out: {type(error).__name__}: {error}"))
        return Runtime("‹unknown›")

    def evaluate(self, node: Node, local: dict):
        match node.kind:
            case "text":
                if isinstance(node.value, str):
                    return node.value
                return "".join(part if isinstance(part, str) else shown(self.evaluate(part, local)) for part in node.parts)
            case "literal":
                return node.value
            case "name":
                return local[node.value] if node.value in local else self.value(node.value, node)
            case "array":
                return [self.evaluate(part, local) for part in node.parts]
            case "object":
                return {item.key if isinstance(item.key, str) else self.evaluate(item.key, local): self.evaluate(item.value, local) for item in node.parts}
            case "for":
                names, (source, body) = node.value, node.parts
                return [self.evaluate(body, local | dict(zip(names, (item, index)))) for index, item in enumerate(self.sequence(source, local))]
            case "choose":
                return self.evaluate(node.parts[1 if self.evaluate(node.parts[0], local) else 2], local)
            case "lambda":
                return lambda *given: self.evaluate(node.parts[0], local | dict(zip(node.value, given)))
            case "unary":
                value = self.evaluate(node.parts[0], local)
                return not value if node.value == "!" else -value
            case "binary":
                return self.binary(node, local)
            case "member":
                return self.member(node, local)
            case "index":
                owner, index = (self.evaluate(part, local) for part in node.parts)
                if isinstance(owner, Runtime):
                    return Runtime(f"{owner}[{index}]")
                try:
                    return owner[index]
                except (KeyError, IndexError):
                    raise Failure(node, "evaluate", f"there is no [{index}] here") from None
            case "call":
                return self.call(node, local)
        raise Failure(node, "evaluate", f"this check cannot work out {node.kind}")

    def binary(self, node: Node, local: dict):
        left = self.evaluate(node.parts[0], local)
        right = lambda: self.evaluate(node.parts[1], local)  # noqa: E731
        match node.value:
            case "&&":
                return bool(left and right())
            case "||":
                return bool(left or right())
            case "??":
                return right() if left is None else left
            case "==":
                return left == right()
            case "!=":
                return left != right()
            case "=~":
                return str(left).lower() == str(right()).lower()
            case "+" | "-" | "*" | "/" | "%":
                other = right()
                return {"+": left + other, "-": left - other, "*": left * other, "/": left // other if other else 0, "%": left % other if other else 0}[node.value]
            case ">":
                return left > right()
            case "<":
                return left < right()
            case ">=":
                return left >= right()
            case "<=":
                return left <= right()
        raise Failure(node, "evaluate", f"this check does not know the operator {node.value}")

    def member(self, node: Node, local: dict):
        owner, safe, name = self.evaluate(node.parts[0], local), node.parts[1], node.value
        if isinstance(owner, Deployed):
            return owner.member(name, node)
        if isinstance(owner, Instance):
            if name == "outputs":
                if owner.outputs is None:
                    raise Failure(node, "condition", f"{owner.declaration.name} is not deployed here, but its outputs are asked for")
                return owner.outputs
            return Runtime(f"‹{owner.declaration.name}.{name}›")
        if isinstance(owner, Runtime):
            return Runtime(f"{owner.rstrip('›')}.{name}›")
        if isinstance(owner, dict):
            if name in owner:
                return owner[name]
            if safe:
                return None
        if owner is None and safe:
            return None
        raise Failure(node, "evaluate", f"there is no property {name} here")

    def call(self, node: Node, local: dict):
        name = node.value
        if node.parts[0] is not None and node.parts[0].kind == "name" and node.parts[0].value not in ("az", "sys"):
            return Runtime(f"‹{node.parts[0].value}.{name}()›")
        declared = self.file.declarations.get(name)
        if declared is not None and declared.kind == "func":
            given = [self.evaluate(part, local) for part in node.parts[1:]]
            return self.evaluate(declared.value, dict(zip(declared.parameters, given)))
        if name == "loadJsonContent":
            return json.loads((self.file.path.parent / node.parts[1].value).read_text())
        if name == "loadTextContent":
            return (self.file.path.parent / node.parts[1].value).read_text()
        if name == "resourceGroup":
            return {"name": self.group, "id": f"{SUBSCRIPTION}/resourceGroups/{self.group}", "location": Runtime("‹location›")}
        if name == "resourceId":
            kind, *names = (self.evaluate(part, local) for part in node.parts[1:])
            pairs = zip(kind.split("/")[1:], names)
            return f"{SUBSCRIPTION}/resourceGroups/{self.group}/providers/{kind.split('/')[0]}" + "".join(f"/{k}/{n}" for k, n in pairs)
        function = FUNCTIONS.get(name)
        if function is None:
            raise Failure(node, "evaluate", f"this check cannot work out {name}()")
        return function(*(self.evaluate(part, local) for part in node.parts[1:]))


@dataclass
class World:
    """All files, and what one parameter file makes of them."""

    files: dict[Path, File]
    resources: list[Deployed] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    parameters: dict = field(default_factory=dict)
    outputs: dict = field(default_factory=dict)
    # What parameters and outputs came to: file, name, value, and the line of an output (None of a parameter).
    held: list[tuple[File, str, object, int | None]] = field(default_factory=list)


def world(files: dict[Path, File], parameter_file: File) -> World:
    made = World(files)
    template = files.get((parameter_file.path.parent / parameter_file.using).resolve())
    if template is None:
        made.findings.append(Finding(parameter_file.name, 1, "parameters", f"using: there is no {parameter_file.using or 'template'}"))
        return made
    own = Scope(made, parameter_file, {}, "")
    given = {declaration.name: own.guarded(lambda d=declaration: own.evaluate(d.value, {}), declaration.line) for declaration in parameter_file.of("var")}
    made.parameters = given
    scope = Scope(made, template, given, "")
    for name, value in given.items():
        declaration = parameter_file.declarations[name]
        parameter = template.declarations.get(name)
        if parameter is None or parameter.kind != "param":
            made.findings.append(Finding(parameter_file.name, declaration.line, "parameters", f"{template.name} has no parameter {name}"))
        else:
            made.held.append((template, name, value, None))
            scope.limits(parameter, value, parameter_file, declaration.line)
    for parameter in template.of("param"):
        if parameter.value is None and parameter.name not in given and not nullable(parameter):
            made.findings.append(Finding(parameter_file.name, 1, "parameters", f"parameter {parameter.name} of {template.name} is missing"))
    made.outputs = scope.run()
    return made


def nullable(parameter: Declaration) -> bool:
    return bool(parameter.type and str(parameter.type.value).endswith("?"))
