"""A stand-in for Azure's command line: records every call, answers from a scripted state, and fails on demand.

In the state, `fail` is a list of {"match": a pattern of the call, "times": how often (default 1), "skip": how many pass
before, "says": what goes to stderr, "after": whether the call does its work first, "kill": whether the caller is killed
instead}. A call that is not known here is an error of the test.
"""

import json
import re
import shutil
import socketserver
import threading
from pathlib import Path


class Said(Exception):
    pass


# Tags of blobs, by their file's name.
state_of_tags: dict[str, str] = {}


def option(arguments: list[str], name: str, default: str = "") -> str:
    return arguments[arguments.index(name) + 1] if name in arguments else default


def blob(folder: Path, etags: dict, verb: str, arguments: list[str]):
    def path_of(name: str) -> Path:
        return folder / name.replace("/", "⁄")

    path = path_of(option(arguments, "--name"))
    if verb == "list":
        names = sorted(file.name.replace("⁄", "/") for file in folder.iterdir())
        names = [name for name in names if name.startswith(option(arguments, "--prefix"))]
        if "ends_with" in option(arguments, "--query"):
            return [{"name": name, "at": etags[path_of(name).name]} for name in names if name.endswith(".zip")]
        return names
    there = path.is_file()
    if verb == "upload":
        if there and ("--overwrite" not in arguments or option(arguments, "--if-none-match") == "*"):
            raise Said("ERROR: The specified blob already exists.\nErrorCode:BlobAlreadyExists")
        wanted = option(arguments, "--if-match")
        if wanted and (not there or str(etags[path.name]) != wanted):
            raise Said("ERROR: The condition specified using HTTP conditional header(s) is not met.\nErrorCode:ConditionNotMet")
        shutil.copyfile(option(arguments, "--file"), path)
        state_of_tags[path.name] = option(arguments, "--tags")
        etags[path.name] = max(etags.values(), default=0) + 1
        return {"etag": str(etags[path.name])}
    if not there:
        raise Said("ERROR: The specified blob does not exist.\nErrorCode:BlobNotFound")
    if verb == "show":
        return {"name": option(arguments, "--name"), "properties": {"etag": str(etags[path.name])}}
    if verb == "download":
        shutil.copyfile(path, option(arguments, "--file"))
        return {}
    if verb == "delete":
        path.unlink()
        return None
    raise Said(f"the stand-in knows no storage blob {verb}")


def rest(state: dict, arguments: list[str]):
    method, url = option(arguments, "--method"), option(arguments, "--url").split("?")[0]
    body = option(arguments, "--body")
    if body.startswith("@"):
        with open(body[1:]) as file:
            body = file.read()
    if url.endswith("/query"):
        row = state["telemetry"].get(state["production"], state["telemetry"].get("*", {}))
        return {"tables": [{"columns": [{"name": name} for name in row], "rows": [list(row.values())]}]}
    if url.endswith("/appsettings"):
        return {"value": [{"name": name, "properties": {"status": status}} for name, status in state["references"].items()]}
    if url.endswith("/appsettings/refresh"):
        return None
    if url.endswith("/functions/migrate"):
        state["migrated"] += 1
        return None
    if "/secrets/" in url:
        name = url.rsplit("/", 1)[-1]
        if method == "put":
            told = json.loads(body)["properties"]
            state["secrets"][name] = {"value": told["value"], "created": state["now"], "exp": told["attributes"]["exp"], "enabled": True, "version": state["secrets"].get(name, {}).get("version", 0) + 1}
        elif name not in state["secrets"]:
            raise Said("ERROR: Not Found({\"error\":{\"code\":\"SecretNotFound\"}})")
        elif method == "patch":
            state["secrets"][name]["enabled"] = json.loads(body)["properties"]["attributes"]["enabled"]
        kept = state["secrets"][name]
        return {"properties": {"secretUriWithVersion": f"https://kv.vault.azure.net/secrets/{name}/{kept['version']}", "attributes": {"created": kept["created"]}}}
    if "FrontDoorWebApplicationFirewallPolicies" in url:
        if method == "put":
            state["firewall"] = json.loads(body) | {"properties": json.loads(body)["properties"] | {"provisioningState": "Succeeded"}}
        return state["firewall"]
    return {}


def restriction(state: dict, verb: str, arguments: list[str]):
    rules = state["restrictions"].setdefault(option(arguments, "--name"), [])
    if verb == "add":
        rules.append({"name": option(arguments, "--rule-name"), "ip_address": option(arguments, "--ip-address"), "action": "Deny"})
    if verb == "remove":
        rules[:] = [rule for rule in rules if rule["ip_address"] != option(arguments, "--ip-address")]
    return {"ipSecurityRestrictions": rules}


def answer(state: dict, folder: Path, etags: dict, arguments: list[str]):
    call = " ".join(arguments)

    def of(words: str) -> bool:
        return call.startswith(words + " ") or call == words

    if of("account show"):
        return {"id": "sub-1", "user": "someone@example.com"}
    if of("deployment sub show"):
        if not state["outputs"]:
            raise Said("ERROR: (DeploymentNotFound) Deployment could not be found.")
        return {name: {"value": value} for name, value in state["outputs"].items()}
    if of("deployment sub create"):
        state["infrastructure"] += 1
        return "Succeeded"
    if of("webapp show"):
        if "slotSwapStatus" in call:
            return state["swapped"]
        return "slot.example.com"
    if of("webapp deployment slot swap"):
        state["production"], state["slot"] = state["slot"], state["production"]
        state["swaps"] += 1
        state["swapped"] = f"swap {state['swaps']}"
        return None
    if of("webapp deploy"):
        state["slot" if "--slot" in arguments else "production"] = Path(option(arguments, "--src-path")).name
        return {}
    if of("functionapp deployment source config-zip"):
        state["handlers"] = Path(option(arguments, "--src")).name
        return {}
    if of("functionapp config appsettings list"):
        return [{"name": name, "value": value} for name, value in state["settings"].items()]
    if of("keyvault secret show"):
        return state["secrets"][option(arguments, "--id").rsplit("/", 1)[-1]]["value"]
    if of("functionapp config appsettings set"):
        name, _, value = option(arguments, "--settings").partition("=")
        state["settings"][name] = value
        return 1
    if of("functionapp config appsettings delete"):
        state["settings"].pop(option(arguments, "--setting-names"), None)
        return 1
    if re.match("(functionapp|webapp) config access-restriction ", call):
        return restriction(state, arguments[3], arguments)
    if of("afd route update"):
        state["routes"][option(arguments, "--route-name")] = option(arguments, "--enabled-state")
        return None
    if of("monitor metrics list"):
        counts = state["metrics"].get(state["production"], state["metrics"].get("*", {}))
        return {"value": [{"name": {"value": name}, "timeseries": [{"data": [{"total": count}, {}]}]} for name, count in counts.items()]}
    if of("monitor log-analytics workspace list"):
        return "workspace-1"
    if of("staticwebapp secrets list"):
        return "the console's token"
    if of("storage blob"):
        return blob(folder, etags, arguments[2], arguments)
    if of("rest"):
        return rest(state, arguments)
    if of("keyvault secret list-versions"):
        return state["versions"]
    if of("keyvault secret set-attributes"):
        next(version for version in state["versions"] if version["id"] == option(arguments, "--id"))["enabled"] = False
        return None
    if of("provider show"):
        return "Registered" if option(arguments, "--namespace") in state["providers"] else "NotRegistered"
    if of("provider register"):
        state["providers"].append(option(arguments, "--namespace"))
        return None
    if of("identity create") or of("identity show"):
        made = {"principalId": "principal-" + option(arguments, "--name"), "clientId": "client-" + option(arguments, "--name")}
        return made["principalId"] if option(arguments, "--query") == "principalId" else made
    if of("role definition list"):
        return state["definitions"]
    if of("role definition create"):
        state["definitions"].append(json.loads(option(arguments, "--role-definition"))["Name"])
        return None
    if of("role assignment create"):
        key = " ".join(option(arguments, name) for name in ("--assignee-object-id", "--role", "--scope"))
        if key in state["assignments"]:
            raise Said("ERROR: (RoleAssignmentExists) The role assignment already exists.")
        state["assignments"][key] = option(arguments, "--condition")
        return None
    if any(map(of, ("group create", "storage account create", "identity federated-credential create"))):
        return {}
    if of("postgres flexible-server show"):
        name = option(arguments, "--name")
        if name not in state["servers"]:
            raise Said("ERROR: (ResourceNotFound) The Resource was not found.")
        return {"host": f"{name}.example.com", "subnet": "subnet-1", "zone": "zone-1", "earliest": "2026-01-01T00:00:00+00:00"}
    if of("postgres flexible-server restore"):
        state["servers"][option(arguments, "--name")] = option(arguments, "--restore-time")
        return {}
    if of("postgres flexible-server delete"):
        del state["servers"][option(arguments, "--name")]
        return None
    if of("vm create"):
        if option(arguments, "--name") in state["machines"]:
            raise Said("ERROR: (PropertyChangeNotAllowed) Changing property 'linuxConfiguration.ssh.publicKeys' is not allowed.")
        state["machines"].append(option(arguments, "--name"))
        return "vm-1"
    if of("vm delete"):
        if option(arguments, "--name") not in state["machines"]:
            raise Said("ERROR: (ResourceNotFound) The Resource was not found.")
        state["machines"].remove(option(arguments, "--name"))
        return None
    if of("vm run-command invoke"):
        state["ran"] = Path(option(arguments, "--scripts")[1:]).read_text()
        return "Enable succeeded: \n[stdout]\n" + state["machine_says"] + "\n[stderr]\n"
    if of("account get-access-token"):
        return "a token"
    if of("ad signed-in-user show"):
        return "me"
    raise Said(f"the stand-in does not know: az {call}")


class StandIn:
    """The state, the calls and the blobs of one test, and the port on which `az` asks."""

    def __init__(self, folder: Path):
        self.folder, self.etags, self.state, self.calls = folder, {}, {}, []
        self.lock = threading.RLock()
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type:
        world = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                arguments = [self._part() for _ in range(int(self._part()))]
                code, text = world.call(arguments)
                self.wfile.write(f"{code}\n{text}".encode())

            def _part(self) -> str:
                read = bytearray()
                while (byte := self.rfile.read(1)) != b"\0":
                    read += byte
                return read.decode()

        return Handler

    def call(self, arguments: list[str]) -> tuple[str, str]:
        """Exit code, or `kill`; and what is said."""
        arguments = [argument for argument in arguments if argument != "--only-show-errors"]
        at = arguments.index("--output")
        del arguments[at : at + 2]
        with self.lock:
            self.calls.append(" ".join(arguments))
            failure = self._failure(self.calls[-1])
            result = None
            if not failure or failure.get("after"):
                try:
                    result = answer(self.state, self.folder, self.etags, arguments)
                except Said as said:
                    return "1", str(said)
        if failure:
            return ("kill", "") if failure.get("kill") else ("1", failure["says"])
        return "0", "" if result is None else json.dumps(result)

    def _failure(self, call: str) -> dict | None:
        for rule in self.state["fail"]:
            if rule.get("times", 1) > 0 and re.search(rule["match"], call):
                if rule.get("skip", 0) > 0:
                    rule["skip"] -= 1
                    continue
                rule["times"] = rule.get("times", 1) - 1
                return rule
        return None
