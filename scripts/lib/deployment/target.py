"""An environment: what its parameter file says, and what Azure made of it."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .az import Az, Failed, Missing

ROOT = Path(__file__).resolve().parent.parent.parent.parent
BICEP = ROOT / "bicep"
MANAGEMENT = "https://management.azure.com"
LITERAL = re.compile(r"^param (\w+) = (?:'([^']*)'|(true|false|-?\d+)|readEnvironmentVariable\('(\w+)'(?:, '([^']*)')?\))$", re.M)
SECRETS = re.compile(r"^param (handlersSecretNames|serverSecretNames) = \{\n(.*?)^\}", re.M | re.S)


class Parameters:
    """The simple values of a parameter file: texts, numbers, switches, and variables of the environment."""

    def __init__(self, environment: str):
        self.file = BICEP / f"{environment}.bicepparam"
        if not self.file.is_file():
            there = ", ".join(sorted(path.stem for path in BICEP.glob("*.bicepparam")))
            raise Failed(f"There is no environment {environment}: no {self.file.relative_to(ROOT)}. There are: {there}.")
        self.text = self.file.read_text()
        self.values: dict[str, str | int | bool] = {}
        self.wanted: list[str] = []
        for name, text, plain, variable, default in LITERAL.findall(self.text):
            if variable:
                self.values[name] = os.environ.get(variable, default)
            elif plain:
                self.values[name] = plain == "true" if plain in ("true", "false") else int(plain)
            else:
                self.values[name] = text
        # Without a default the compiler refuses an unset one.
        self.wanted = sorted(set(re.findall(r"readEnvironmentVariable\('(\w+)'\)", self.text)))

    def get(self, name: str, default=None):
        return self.values.get(name, default)

    def unset(self) -> list[str]:
        return [name for name in self.wanted if not os.environ.get(name)]

    def secrets(self) -> dict[str, dict[str, str]]:
        """Of either app: name of the setting, and what follows the project in the secret's name."""
        return {name: dict(re.findall(r"^\s*(\w+): '([\w-]+)'$", body, re.M)) for name, body in SECRETS.findall(self.text)}


@dataclass
class Environment:
    name: str
    project: str
    group: str
    handlers: str
    server: str
    handlers_url: str
    server_url: str
    slot: str
    slot_url: str
    # Where callers of the server, and the console, find it.
    api_url: str
    # Name and address of Static Web Apps; empty where the server itself serves the console, or nobody does.
    console: str
    console_url: str
    outputs: dict

    @property
    def store_group(self) -> str:
        return f"rg-{self.project}-deploy"

    def site(self, app: str, subscription: str, slot: str = "") -> str:
        return f"/subscriptions/{subscription}/resourceGroups/{self.group}/providers/Microsoft.Web/sites/{app}" + (f"/slots/{slot}" if slot else "")


def from_azd(environment: str) -> dict | None:
    """Within azd's hooks the outputs are variables; its deployments have names of their own."""
    if os.environ.get("AZURE_ENV_NAME") != environment or not os.environ.get("HANDLERS_NAME"):
        return None
    names = re.findall(r"^output (\w+) ", (BICEP / "main.bicep").read_text(), re.M)
    values = {name: os.environ.get(name, "") for name in names}
    return {name: {"value": json.loads(value) if value.startswith("[") else value} for name, value in values.items()}


def find(az: Az, environment: str, slot_url: str = "") -> Environment:
    """Asks Azure what the infrastructure's last deployment put out."""
    parameters = Parameters(environment)
    project = str(parameters.get("project"))
    name = f"{project}-{environment}"
    assumed = {key: {"value": f"<{key}>"} for key in ("HANDLERS_NAME", "SERVER_NAME", "VAULT_URI", "DATABASE_HOST")} | {
        "AZURE_RESOURCE_GROUP": {"value": f"rg-{name}"}, "HANDLERS_URL": {"value": "https://<HANDLERS_NAME>"}, "SERVER_URL": {"value": "https://<SERVER_NAME>"},
        "DATABASE_ROLES": {"value": [f"{name}-handlers", f"{name}-server"]},
    }  # fmt: skip
    if parameters.get("frontDoor"):
        assumed["EDGE_URL"] = {"value": "https://<EDGE>"}
    if parameters.get("staticWeb"):
        assumed |= {"CONSOLE_NAME": {"value": "<CONSOLE_NAME>"}, "CONSOLE_URL": {"value": "https://<CONSOLE_NAME>"}}
    try:
        made = from_azd(environment) or az("deployment", "sub", "show", "--name", name, "--query", "properties.outputs", assume=assumed)
    except Missing:
        raise Failed(f"There is no deployment {name} in this subscription. First: scripts/bootstrap {environment} (or `az account set`, if it is another one).") from None
    outputs = {key.upper(): value.get("value") for key, value in (made or {}).items()}
    lacking = [key for key in ("AZURE_RESOURCE_GROUP", "HANDLERS_NAME", "SERVER_NAME", "HANDLERS_URL", "SERVER_URL") if not outputs.get(key)]
    if lacking:
        raise Failed(f"The deployment {name} has no output {', '.join(lacking)}: it failed or was cut. Run scripts/bootstrap {environment} --only infrastructure.")
    edge = outputs.get("EDGE_URL") or ""
    slot = "staging" if parameters.get("serverSlot") else ""
    if slot and not slot_url:
        host = az("webapp", "show", "--resource-group", outputs["AZURE_RESOURCE_GROUP"], "--name", outputs["SERVER_NAME"], "--slot", slot,
                  "--query", "defaultHostName", assume="<SLOT>")  # fmt: skip
        slot_url = f"https://{host}"
    return Environment(
        name=environment, project=project, group=outputs["AZURE_RESOURCE_GROUP"], handlers=outputs["HANDLERS_NAME"], server=outputs["SERVER_NAME"],
        # Past Front Door the apps refuse: what is probed is what callers reach.
        handlers_url=(edge or outputs["HANDLERS_URL"]).rstrip("/"), server_url=(edge or outputs["SERVER_URL"]).rstrip("/"),
        slot=slot, slot_url=slot_url.rstrip("/"), api_url=(outputs.get("API_URL") or edge or outputs["SERVER_URL"]).rstrip("/"),
        console=outputs.get("CONSOLE_NAME") or "", console_url=(outputs.get("CONSOLE_URL") or "").rstrip("/"), outputs=outputs,
    )  # fmt: skip
