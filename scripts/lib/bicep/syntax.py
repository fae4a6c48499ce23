"""Bicep files as trees of plain objects: parsed by tree-sitter-bicep, then put into the form that the checks walk."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass
class Finding:
    """One thing that is wrong, where, and by which rule."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


@dataclass
class Node:
    """`kind`: text, literal, array, object, name, member, index, call, binary, unary, choose, for, if, lambda, child, type."""

    kind: str
    line: int
    value: object = None
    parts: list = field(default_factory=list)
    closed: bool = False  # stood in parentheses


@dataclass
class Property:
    key: object  # a string, or a text Node with interpolation
    value: Node
    line: int
    decorators: dict = field(default_factory=dict)


@dataclass
class Declaration:
    kind: str  # param, var, resource, module, output, type, func
    name: str
    line: int
    decorators: dict
    value: Node | None = None
    type: Node | None = None
    target: str = ""  # a resource's Type@version, a module's path
    existing: bool = False
    condition: Node | None = None
    loop: Node | None = None
    parameters: list = field(default_factory=list)
    used: bool = False


@dataclass
class File:
    path: Path
    name: str
    scope: str = "resourceGroup"
    scope_line: int = 1
    using: str = ""
    declarations: dict[str, Declaration] = field(default_factory=dict)
    outputs: dict[str, Declaration] = field(default_factory=dict)
    imports: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def of(self, kind: str) -> list[Declaration]:
        return [declaration for declaration in self.declarations.values() if declaration.kind == kind]


def parser():
    import tree_sitter
    import tree_sitter_bicep

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))


class Reader:
    """Turns one file's concrete tree into a File."""

    def __init__(self, parse, path: Path, name: str):
        self.file = File(path, name)
        text = path.read_text()
        if path.suffix == ".bicepparam":
            # The grammar knows `param name = value` not: to it, such a file is one of variables. Same lengths, same lines.
            text = re.sub(r"(?m)^param ", "var   ", text)
        self.tree = parse.parse(text.encode())

    def read(self) -> File:
        root = self.tree.root_node
        if root.has_error:
            self.errors(root)
            return self.file
        decorators: dict = {}
        for node in root.children:
            kind = node.type
            if kind == "comment":
                continue
            if kind == "decorators":
                decorators = self.decorators(node)
                continue
            self.statement(node, decorators)
            decorators = {}
        return self.file

    def find(self, rule: str, line: int, message: str) -> None:
        self.file.findings.append(Finding(self.file.name, line, rule, message))

    def errors(self, node) -> None:
        if node.is_missing:
            self.find("syntax", line(node), f"{node.type} is missing")
        elif node.is_error:
            shown = " ".join(node.text.decode(errors="replace").split())[:60]
            self.find("syntax", line(node), f"not understood: {shown}")
        else:
            for child in node.children:
                if child.has_error or child.is_missing:
                    self.errors(child)

    def decorators(self, node) -> dict:
        found = {}
        for decorator in node.named_children:
            if decorator.type != "decorator":
                continue
            call = self.expression(next(child for child in decorator.named_children if child.type != "comment"))
            if str(call.value) in found:
                self.find("names", line(decorator), f"@{call.value} stands twice")
            found[call.value if call.kind == "call" else str(call.value)] = call
        return found

    def statement(self, node, decorators: dict) -> None:
        named = [child for child in node.named_children if child.type != "comment"]
        tokens = [child.type for child in node.children if not child.is_named]
        at = line(node)
        match node.type:
            case "target_scope_assignment":
                self.file.scope, self.file.scope_line = self.plain(named[0]), at
            case "using_statement":
                self.file.using = self.plain(named[0])
            case "import_functionality" | "import_statement":
                path = self.plain(named[-1])
                names = [child.text.decode() for child in named[:-1]]
                for name in names:
                    self.file.imports[name] = (path, name, at)
            case "parameter_declaration":
                type_node = self.type(named[1]) if len(named) > 1 else None
                default = self.expression(named[2]) if len(named) > 2 else None
                self.add(Declaration("param", named[0].text.decode(), at, decorators, default, type_node))
            case "variable_declaration":
                self.add(Declaration("var", named[0].text.decode(), at, decorators, self.expression(named[-1])))
            case "type_declaration":
                self.add(Declaration("type", named[0].text.decode(), at, decorators, type=self.type(named[1])))
            case "output_declaration":
                output = Declaration("output", named[0].text.decode(), at, decorators, self.expression(named[-1]), self.type(named[1]))
                if output.name in self.file.outputs:
                    self.find("names", at, f"output {output.name} is declared twice")
                self.file.outputs[output.name] = output
            case "user_defined_function":
                parameters = [child.named_children[0].text.decode() for child in next(part for part in named if part.type == "parameters").named_children]
                self.add(Declaration("func", node.child_by_field_name("name").text.decode(), at, decorators, self.expression(named[-1]), parameters=parameters))
            case "resource_declaration" | "module_declaration":
                kind = "resource" if node.type.startswith("resource") else "module"
                made = Declaration(kind, named[0].text.decode(), at, decorators, target=self.plain(named[1]), existing="existing" in tokens)
                self.body(made, self.expression(named[-1]))
                self.add(made)
            case other:
                self.find("syntax", at, f"this check does not know {other}")

    def body(self, made: Declaration, value: Node) -> None:
        if value.kind == "for":
            made.loop = value
            value = value.parts[1]
        if value.kind == "if":
            made.condition, value = value.parts
        made.value = value

    def add(self, declaration: Declaration) -> None:
        if declaration.name in self.file.declarations:
            self.find("names", declaration.line, f"{declaration.name} is declared twice")
        self.file.declarations[declaration.name] = declaration

    def plain(self, node) -> str:
        text = self.expression(node)
        return text.value if text.kind == "text" and isinstance(text.value, str) else ""

    def type(self, node) -> Node:
        return Node("type", line(node), node.text.decode(), [node, self])

    def expression(self, node) -> Node:
        made = self.raw(node)
        return lifted(made)

    def children(self, node) -> list:
        return [child for child in node.named_children if child.type not in ("comment", "nullable_type!")]

    def raw(self, node) -> Node:
        at = line(node)
        named = self.children(node)
        match node.type:
            case "string":
                return self.text(node)
            case "number":
                return Node("literal", at, int(node.text))
            case "boolean":
                return Node("literal", at, node.text == b"true")
            case "null":
                return Node("literal", at, None)
            case "identifier":
                return Node("name", at, node.text.decode())
            case "parenthesized_expression":
                return replace(self.expression(named[0]), closed=True)
            case "nullable_type":
                return self.expression(named[0])
            case "array":
                return Node("array", at, parts=self.items(named))
            case "object":
                return self.object(node)
            case "member_expression":
                safe = any(child.type == ".?" for child in node.children)
                return Node("member", line(named[-1]), node.child_by_field_name("property").text.decode(), [self.expression(named[0]), safe])
            case "subscript_expression":
                return Node("index", at, None, [self.expression(named[0]), self.expression(named[1])])
            case "resource_expression":
                return Node("child", at, node.child_by_field_name("resource").text.decode(), [self.expression(named[0])])
            case "call_expression":
                function = node.child_by_field_name("function")
                arguments = [self.expression(child) for child in self.children(node.child_by_field_name("arguments"))]
                if function.type == "member_expression":
                    owner = self.expression(function.child_by_field_name("object"))
                    return Node("call", at, function.child_by_field_name("property").text.decode(), [owner, *arguments])
                return Node("call", at, function.text.decode(), [None, *arguments])
            case "binary_expression":
                operator = next(child.type for child in node.children if not child.is_named)
                return Node("binary", at, operator, [self.expression(named[0]), self.expression(named[1])])
            case "unary_expression":
                operator = next(child.type for child in node.children if not child.is_named)
                return Node("unary", at, operator, [self.expression(named[-1])])
            case "ternary_expression":
                return Node("choose", at, None, [self.expression(child) for child in named[:3]])
            case "if_statement":
                return Node("if", at, None, [self.expression(named[0]), self.expression(named[1])])
            case "for_statement":
                first = named[0]
                names = [child.text.decode() for child in first.named_children] if first.type == "for_loop_parameters" else [first.text.decode()]
                return Node("for", at, names, [self.expression(named[1]), self.expression(named[2])])
            case "lambda_expression":
                first = named[0]
                names = [child.text.decode() for child in first.named_children] if first.type == "parenthesized_expression" else [first.text.decode()]
                return Node("lambda", at, names, [self.expression(named[1])])
        self.find("syntax", at, f"this check does not know {node.type}")
        return Node("literal", at, None)

    def items(self, named: list) -> list:
        # Inside an array the grammar reads `x[i]` as two items, `x` and `[i]`; where nothing lies between, it is one.
        made: list = []
        for child, before in zip(named, [None, *named]):
            self.apart(before, child)
            value = self.expression(child)
            if before is not None and child.type == "array" and before.end_byte == child.start_byte and len(value.parts) == 1:
                value = Node("index", value.line, None, [made.pop(), value.parts[0]])
            made.append(value)
        return made

    def apart(self, before, node) -> None:
        # To the grammar a line's end is nothing; to the language it, or a comma, parts two items.
        if before is None or before.end_point[0] != node.start_point[0] or before.end_byte == node.start_byte:
            return
        between = before.next_sibling
        while between is not None and between.start_byte < node.start_byte:
            if between.type == ",":
                return
            between = between.next_sibling
        self.find("syntax", line(node), "a comma or a new line is missing before this")

    def text(self, node) -> Node:
        parts: list = []
        for child in node.children:
            match child.type:
                case "string_content":
                    parts.append(child.text.decode())
                case "escape_sequence":
                    parts.append({"n": "\n", "r": "\r", "t": "\t"}.get(child.text.decode()[1], child.text.decode()[1]))
                case "interpolation":
                    parts.append(self.expression(self.children(child)[0]))
        if all(isinstance(part, str) for part in parts):
            return Node("text", line(node), "".join(parts))
        return Node("text", line(node), None, parts)

    def object(self, node) -> Node:
        properties = []
        seen = set()
        decorators: dict = {}
        before = None
        for child in node.named_children:
            if child.type == "object_property":
                self.apart(before, child)
                before = child
            if child.type == "decorators":
                decorators = self.decorators(child)
            if child.type != "object_property":
                continue
            named = self.children(child)
            key_node = named[0]
            key: object = key_node.text.decode()
            if key_node.type == "string":
                text = self.text(key_node)
                key = text.value if isinstance(text.value, str) else text
            if isinstance(key, str) and key in seen:
                self.find("names", line(child), f"property {key} stands twice in one object")
            if isinstance(key, str):
                seen.add(key)
            properties.append(Property(key, self.expression(named[-1]), line(child), decorators))
            decorators = {}
        return Node("object", line(node), None, properties)


STRENGTH = {"??": 1, "||": 2, "&&": 3, "==": 4, "!=": 4, "=~": 4, "!~": 4, "<": 5, ">": 5, "<=": 5, ">=": 5, "+": 6, "-": 6, "*": 7, "/": 7, "%": 7}


def lifted(node: Node) -> Node:
    """The grammar orders operators otherwise than the language: it reads `a && x.y` as `(a && x).y`, and ends the body of a
    lambda early. Here it is put right: what follows binds to as much of what stands before as its strength says."""
    first = node.parts[0] if node.parts and isinstance(node.parts[0], Node) else None
    if node.kind in ("member", "index", "binary", "choose", "child") and first is not None and not first.closed:
        if first.kind == "lambda":
            return Node("lambda", first.line, first.value, [lifted(replace(node, parts=[first.parts[0], *node.parts[1:]]))])
        if weaker(first, node):
            return replace(first, parts=[*first.parts[:-1], lifted(replace(node, parts=[first.parts[-1], *node.parts[1:]]))])
    if node.kind in ("binary", "unary"):
        last = node.parts[-1]
        if not last.closed and (last.kind == "choose" or (last.kind == "binary" and (node.kind == "unary" or strength(last) <= strength(node)))):
            return replace(last, parts=[lifted(replace(node, parts=[*node.parts[:-1], last.parts[0]])), *last.parts[1:]])
    return node


def strength(node: Node) -> int:
    return STRENGTH.get(str(node.value), 8)


def weaker(first: Node, node: Node) -> bool:
    """Whether `node` takes only the last operand of `first`, which stands before it."""
    if node.kind == "choose":
        return False
    if node.kind == "binary":
        return first.kind == "choose" or (first.kind == "binary" and strength(first) < strength(node))
    return first.kind in ("choose", "binary", "unary")


def line(node) -> int:
    return node.start_point[0] + 1


# What was read already, by path and text: the tests change one file of many, and read them all again each time.
_READ: dict[tuple[Path, str, str], File] = {}


def read(parse, path: Path, name: str) -> File:
    key = (path, name, path.read_text())
    if key not in _READ:
        _READ[key] = Reader(parse, path, name).read()
    for declaration in _READ[key].declarations.values():
        declaration.used = False
    return _READ[key]
