"""The language's functions, as far as the templates use them, and the values that only a deployment knows."""

import base64
import hashlib
import ipaddress
import json
import os

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000000"


class Runtime(str):
    """A value that is known when it is deployed, not before."""


def shown(value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def union(*values):
    if isinstance(values[0], list):
        merged = []
        for value in values:
            merged += [item for item in value if item not in merged]
        return merged
    result: dict = {}
    for value in values:
        for key, item in value.items():
            old = result.get(key)
            result[key] = union(old, item) if isinstance(old, dict) and isinstance(item, dict) else item
    return result


def contains(container, item) -> bool:
    if isinstance(container, Runtime):
        return False
    return item in container


def unique(*parts) -> str:
    digest = hashlib.sha256("-".join(map(str, parts)).encode()).digest()
    return base64.b32encode(digest).decode().lower()[:13]


def guid(*parts) -> str:
    digest = hashlib.sha256("-".join(map(str, parts)).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def cidr_subnet(prefix: str, bits: int, index: int) -> str:
    network = ipaddress.ip_network(prefix)
    return f"{network.network_address + (index << (32 - bits))}/{bits}"


def to_object(items, key, value=None):
    return {key(item): value(item) if value else item for item in items}


FUNCTIONS = {
    "union": union,
    "shallowMerge": lambda items: {key: value for item in items for key, value in item.items()},
    "concat": lambda *parts: [item for part in parts for item in part] if isinstance(parts[0], list) else "".join(map(str, parts)),
    "flatten": lambda parts: [item for part in parts for item in part],
    "map": lambda items, work: [work(item, index) for index, item in enumerate(items)],
    "filter": lambda items, work: [item for item in items if work(item)],
    "toObject": to_object,
    "items": lambda value: [{"key": key, "value": value[key]} for key in sorted(value, key=str.lower)],
    "objectKeys": lambda value: sorted(value, key=str.lower),
    "contains": contains,
    "empty": lambda value: value is None or (not isinstance(value, Runtime) and len(value) == 0),
    "length": len,
    "first": lambda value: value[0] if value else None,
    "last": lambda value: value[-1] if value else None,
    "take": lambda value, count: value[:count],
    "skip": lambda value, count: value[count:],
    "join": lambda items, by: by.join(map(shown, items)),
    "split": lambda text, by: text.split(by),
    "replace": lambda text, old, new: text.replace(old, new),
    "toLower": lambda text: text.lower(),
    "toUpper": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
    "startsWith": lambda text, start: text.lower().startswith(start.lower()),
    "endsWith": lambda text, end: text.lower().endswith(end.lower()),
    "string": shown,
    "int": int,
    "bool": lambda text: str(text).lower() == "true",
    "json": json.loads,
    "min": lambda *given: min(given[0] if len(given) == 1 else given),
    "max": lambda *given: max(given[0] if len(given) == 1 else given),
    "range": lambda start, count: list(range(start, start + count)),
    "format": lambda text, *given: text.format(*given),
    "guid": guid,
    "uniqueString": unique,
    "cidrSubnet": cidr_subnet,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "subscription": lambda: {"id": SUBSCRIPTION, "subscriptionId": SUBSCRIPTION.split("/")[-1], "tenantId": "11111111-1111-1111-1111-111111111111"},
    "tenant": lambda: {"tenantId": "11111111-1111-1111-1111-111111111111"},
    "environment": lambda: {"name": "AzureCloud", "suffixes": {"storage": "core.windows.net", "keyvaultDns": ".vault.azure.net"}, "resourceManager": "https://management.azure.com/"},
    "subscriptionResourceId": lambda kind, *names: f"{SUBSCRIPTION}/providers/{kind}/{'/'.join(names)}",
    "readEnvironmentVariable": lambda name, default=None: os.environ.get(name) or (Runtime(f"‹{name}›") if default is None else default),
    "any": lambda value: value,
}

# What the language has besides, for the check of names; the evaluator says when it meets one that it cannot work out.
FURTHER = {"loadJsonContent", "loadTextContent", "resourceGroup", "resourceId", "extensionResourceId", "tenantResourceId", "reference", "utcNow", "newGuid",
           "deployment", "managementGroup", "dateTimeAdd", "sort", "reduce", "groupBy", "mapValues", "intersection", "coalesce", "padLeft", "substring",
           "indexOf", "lastIndexOf", "uri", "uriComponent", "parseCidr", "cidrHost", "base64ToString", "fail", "nameof", "description", "secure", "allowed"}
