"""CybORG's dictionaries in a form in which equal means: the same but for what the arrays of `obs.raw` leave out.

Runs in CybORG's Python, too.
"""

from collections import Counter

from purecc4.cyborg.submission.policy.raw import BLOCKED_VISIT, EPHEMERAL, SSH, ZONE_OF


def comparable(found: dict, names: dict) -> list:
    """The entries of a dictionary in their order; `names` are hosts by address."""
    return [(key, _value(key, value, names)) for key, value in found.items()]


def _value(key, value, names):
    if key == "success":
        return value.name
    if key == "action":
        return type(value).__name__, [getattr(value, name, None) for name in ("hostname", "to_subnet", "from_subnet")]
    if key == "message":
        return [message.tolist() for message in value]
    return [(part, _part(key, part, content, names)) for part, content in value.items()]


def _part(host, part, content, names):
    if part == "Processes":
        forms = Counter(_process(host, process, names) for process in content)
        # of visits only the server and the user's zone count; the target's own report of a brute force may be missing
        return {form: 1 if "visit" in form else count for form, count in forms.items() if form != "passing"}
    if part == "Interface":
        return content if "Subnet" in content[0] else {_end(host, entry["ip_address"], names) for entry in content}
    if part == "System info":
        return [(name, x.tolist() if name == "position" else _plain(x)) for name, x in content.items()]
    return [[(name, _plain(x)) for name, x in entry.items()] for entry in content]


def _plain(x):
    """A value, or the name of an enumeration's."""
    return getattr(x, "name", x)


def _end(host, address, names):
    """An end of a connection: the host, or the zone of a green user elsewhere."""
    return host if names[str(address)] == host else ZONE_OF[names[str(address)]]


def _process(host, process, names):
    if "Connections" not in process:
        return tuple((name, str(x)) for name, x in process.items())
    (connection,) = process["Connections"]
    local, remote = (names.get(str(connection.get(f"{side}_address"))) for side in ("local", "remote"))
    ports = [connection.get(f"{side}_port") for side in ("local", "remote")]
    if ports[1] == BLOCKED_VISIT:
        return "visit", local, ZONE_OF[remote], tuple(connection)
    if ports[0] is None and remote == host and ports[1] != SSH:
        return "visit", ZONE_OF[local], remote, tuple(connection)
    if ports == [None, SSH] and local == host != remote:
        return "passing"
    return local, remote, *(port and min(port, EPHEMERAL) for port in ports), tuple(connection)
