"""The console on Static Web Apps: the package's pages, told which server they call, put there by Azure's own client.

One package serves every environment, so nothing of an environment is built into it: the server's address is written into the
page when it is deployed, and the policy lets the page call that address and where people sign in, and nothing else.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import urllib.parse
import zipfile
from pathlib import Path

import versions

from .az import Az, Failed, say
from .target import Environment

CONFIGURATION = "staticwebapp.config.json"
PAGE = "index.html"
OWN = "connect-src 'self'"


def publish(az: Az, environment: Environment, package: Path, options: argparse.Namespace) -> None:
    """Uploads the pages of a package, and looks whether they are what is served."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        page = ""
        if not az.dry:
            with zipfile.ZipFile(package) as zipped:
                zipped.extractall(folder)
        issuer = sign_in(az, environment)
        if not az.dry:
            page = tell(folder, environment.api_url, issuer)
        _upload(az, environment, folder)
    _await(az, environment, page, options)


def sign_in(az: Az, environment: Environment) -> str:
    """Where the server says that people sign in; empty if with keys alone. It tells the page, and it is asked here, so that the
    two cannot differ."""
    url = f"{environment.api_url}/console.json"
    status, body = az.get(url)
    if az.dry or status == 404:
        return ""
    try:
        if status == 200:
            told = json.loads(body)["sign_in"]
            return told["issuer"] if told else ""
    except (ValueError, KeyError, TypeError):
        pass
    raise Failed(f"{url} answered {status or 'nothing'}, and without it nobody knows where the console may sign people in. Is the server well? Then run this again.")


def tell(folder: Path, server: str, issuer: str) -> str:
    """Writes into the page whom it calls, and into the policy that it may; the page as it is then."""
    page, configuration = folder / PAGE, folder / CONFIGURATION
    text, policy = page.read_text(), configuration.read_text()
    if "<head>" not in text or OWN not in policy:
        raise Failed(f"The console's package is none of this release: {PAGE} has no <head>, or {CONFIGURATION} no `{OWN}`. Build it with scripts/package.")
    text = text.replace("<head>", f'<head>\n    <meta name="colloquy-server" content="{origin(server)}" />', 1)
    page.write_text(text)
    configuration.write_text(policy.replace(OWN, " ".join([OWN, *(origin(url) for url in (server, issuer) if url)])))
    return text


def origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    # What goes into the page and its policy is an origin and nothing else, whatever a server says.
    if parts.scheme not in ("https", "http") or not parts.hostname or any(character in parts.netloc for character in "\"'<>; @"):
        raise Failed(f"{url} is no address that the console may call.")
    return f"{parts.scheme}://{parts.netloc}"


def _upload(az: Az, environment: Environment, folder: Path) -> None:
    token = az("staticwebapp", "secrets", "list", "--name", environment.console, "--resource-group", environment.group, "--query", "properties.apiKey", assume="<TOKEN>")
    command = ["npx", "--yes", f"@azure/static-web-apps-cli@{versions.read()['STATIC_WEB_APPS_CLI']}", "deploy", ".", "--env", "production"]
    if az.dry:
        print(shlex.join(command), flush=True)
        return
    if not shutil.which("npx"):
        raise Failed("npx is missing, which runs Azure's client for Static Web Apps: install Node 20.19 or newer, then run this again. All else of the release is deployed.")
    # By environment: an argument would be seen in the list of processes. The client needs no scripts of its packages.
    told = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "HTTPS_PROXY", "NO_PROXY") or name.lower().startswith("npm_config_")}
    told |= {"SWA_CLI_DEPLOYMENT_TOKEN": str(token), "npm_config_ignore_scripts": "true", "CI": "true"}
    # In the folder itself: the client looks for workflows and settings where it is started.
    done = subprocess.run(command, cwd=folder, env=told, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-600:].replace(str(token), "…")
        raise Failed(f"The console was not uploaded; its client said:\n{said}")


def _await(az: Az, environment: Environment, page: str, options: argparse.Namespace) -> None:
    """The client ends well also where it did nothing: what counts is what is served."""
    url = f"{environment.console_url}/"
    for left in range(max(int(options.smoke_minutes * 60 / options.smoke_interval), 1), -1, -1):
        status, body = az.get(url)
        if az.dry or (status == 200 and body.strip() == page.strip()):
            say(f"  {url} is this release's, and calls {environment.api_url}")
            return
        if left:
            az.sleep(options.smoke_interval)
    raise Failed(f"{url} answered {status or 'nothing'}, and not the page that was uploaded, for {options.smoke_minutes:g} min (--smoke-minutes). Run this again.")
