"""What scripts/dev prints for whoever tries it out, and the same done by itself (`--smoke`)."""

import json
import shlex
import subprocess
import time
import urllib.request

import console
import processes
from settings import LOCAL

from .running import CALLBACKS, DEFAULTS, DIRECTORY, ROOT, Development, say

EVENT = DIRECTORY / "stripe-event.json"


def write_event() -> None:
    """A Stripe event with an id of its own, so that every start has one that was never seen."""
    identity = f"{int(time.time() * 1000):x}"
    event = {"id": f"evt_dev_{identity}", "object": "event", "api_version": "2025-03-31.basil", "created": int(time.time()), "type": "invoice.paid",
             "livemode": False, "data": {"object": {"id": f"in_dev_{identity}", "object": "invoice", "amount_paid": 4200, "currency": "eur"}}}
    EVENT.write_text(json.dumps(event))


def curl(development: Development) -> str:
    """Signs at the moment it runs, so it can be pasted at any time and from any directory."""
    event, sign = shlex.quote(str(EVENT)), shlex.quote(str(ROOT / "scripts" / "sign"))
    return (f"curl -sS -i {development.url}/api/webhooks/stripe -H 'content-type: application/json' "
            f'-H "stripe-signature: $({sign} stripe {event})" --data-binary @{event}')


def ask(development: Development) -> str:
    values = development.settings.values
    body = json.dumps({"model": values["COLLOQUY_DEV_MODEL"], "input": "Say hello in five words.", "stream": True})
    return (f"curl -sSN {development.server_url}/responses -H 'content-type: application/json' "
            f"-H 'authorization: Bearer {values['COLLOQUY_DEV_API_KEY']}' -d {shlex.quote(body)}")


def console_address(development: Development) -> str:
    if not console.PAGE.exists():
        return "not built: it needs Node 20.19 or newer, and npm"
    return f"http://localhost:{development.server_port}/      sign in with the API key below"


def provider_again() -> str:
    return f"{shlex.quote(str(ROOT / 'scripts' / 'dev'))} --provider"


def banner(development: Development) -> None:
    url, values = development.url, development.settings.values
    # What the command assumes when it is told nothing.
    elsewhere = "" if development.port == DEFAULTS["PORT"] else f" --url {url}"
    env, handlers = shlex.quote(str(LOCAL / "env")), shlex.quote(str(ROOT / "function-handlers"))
    print(f"""
Colloquy runs. Ctrl-C stops everything; saving a file rebuilds and restarts.

  Models       {development.server_url}      for OpenAI's SDKs; model "{values['COLLOQUY_DEV_MODEL']}"
  Console      {console_address(development)}
  Webhooks     {url}/api/webhooks/<source>      sources: colloquy.toml
  Health       {url}/api/health/live  /ready  /status  /metrics
               http://localhost:{development.server_port}/health/live  /ready  /status  /metrics
  Callbacks    {values['CONSUMER_URL']}      received, checked and printed here
  PostgreSQL   {values['DATABASE_URL']}      pooled
               {values['DATABASE_DIRECT_URL']}      direct
  Azurite      http://127.0.0.1:{development.services.ports.blob} (blobs)  http://127.0.0.1:{development.services.ports.queue} (queues)
  API key      {values['COLLOQUY_DEV_API_KEY']}
  Settings     source .local/env      in a second terminal, for what follows

A turn of a conversation, streamed:

  {ask(development)}

A signed Stripe event, which a model answers (the same again is a duplicate, and has no second effect):

  {curl(development)}

Kill the model's provider, send another event, and watch it wait in the console. Within a minute its answer is a dead
letter; with the provider back, "Replay" does it after all:

  kill {development.children['provider'].pid}
  (source {env} && {handlers} webhooks send stripe)
  {provider_again()}

Any other source, and what became of it:

  ./function-handlers webhooks send github{elsewhere}
  ./function-handlers events list
""", flush=True)


def smoke(development: Development) -> bool:
    """The printed curl, its callbacks at the consumer, and the event in the list."""
    identity = json.loads(EVENT.read_text())["id"]
    answer = subprocess.run(["bash", "-c", curl(development)], cwd="/", capture_output=True, text=True)
    print(answer.stdout + answer.stderr, flush=True)
    if answer.returncode != 0 or not answer.stdout.startswith("HTTP/1.1 200"):
        say("the webhook was not answered with 200.")
        return False

    def delivered(answered: bool) -> bool:
        """Whether the event itself came to the consumer, or the model's answer to it."""
        try:
            lines = [json.loads(line) for line in CALLBACKS.read_text().splitlines()]
        except (OSError, ValueError):
            return False
        bodies = [line["body"] for line in lines if line["verified"] and identity in line["body"]]
        return any(("event.responded" in body) == answered for body in bodies)

    for answered, what in ((False, "callback"), (True, "model's answer")):
        if not processes.until(lambda wanted=answered: delivered(wanted), 60):
            say(f"no verified {what} for {identity} within 60 s.")
            return False
    listed = subprocess.run([ROOT / "function-handlers", "events", "list"], cwd=ROOT, env=development.environment, capture_output=True, text=True)
    print(listed.stdout + listed.stderr, flush=True)
    as_json = subprocess.run([ROOT / "function-handlers", "events", "list", "--json"], cwd=ROOT, env=development.environment, capture_output=True, text=True)
    if listed.returncode != 0 or identity not in as_json.stdout:
        say(f"`function-handlers events list` does not show {identity}.")
        return False
    turn = subprocess.run(["bash", "-c", ask(development)], cwd="/", capture_output=True, text=True)
    print(turn.stdout + turn.stderr, flush=True)
    if turn.returncode != 0 or "event: response.completed" not in turn.stdout:
        say("the turn did not end with response.completed.")
        return False
    if console.PAGE.exists():
        with urllib.request.urlopen(f"http://127.0.0.1:{development.server_port}/", timeout=5) as page:
            if "<title>Colloquy</title>" not in page.read().decode():
                say("the conversation server does not serve the console.")
                return False
    say("smoke passed: a signed event went in, it and a model's answer came out as signed callbacks, the list shows it; a turn was streamed.")
    return True
