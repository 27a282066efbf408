"""Checks of the PyPI package phoenix-channels-python-client against a server: `python checks.py {url} [--phoenix]`.

With `--phoenix` the checks are left out that hold only here, as in checks.mjs. Each check prints a line of JSON. The client has no method for pushes; its protocol handler sends them. Its version 2
drops every broadcast, since it wants the join's own join_ref on it, here as with Phoenix.
"""

import asyncio
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from itertools import count

from phoenix_channels_python_client import (
    PHXChannelsClient,
    PhoenixChannelsProtocolVersion,
    ReconnectPolicy,
)
from phoenix_channels_python_client.exceptions import PHXTopicError
from phoenix_channels_python_client.utils import make_message

V1, V2 = PhoenixChannelsProtocolVersion.V1, PhoenixChannelsProtocolVersion.V2
PATIENCE = 10
server = sys.argv[1]
numbers = count(1)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def log_in(name):
    """A new identity's token."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
    form = urllib.parse.urlencode({"username": name}).encode()
    try:
        opener.open(f"{server}/set-username", form)
        raise AssertionError("the log-in is no redirect")
    except urllib.error.HTTPError as answer:
        cookie = answer.headers["set-cookie"].split(";")[0]
    request = urllib.request.Request(f"{server}/api/socket-token", b"", {"cookie": cookie})
    return json.load(opener.open(request))["token"]


async def until(what, fact):
    for _ in range(PATIENCE * 200):
        if truth := fact():
            return truth
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited in vain until {what}")


class Member:
    """A client, one topic, and everything that comes for it."""

    def __init__(self, name, topic, version):
        url = f"{server.replace('http', 'ws', 1)}/socket/websocket?token={urllib.parse.quote(log_in(name))}"
        policy = ReconnectPolicy(service_restart_min_delay_s=0, service_restart_max_delay_s=0)
        self.client = PHXChannelsClient(url, "", protocol_version=version, reconnect_policy=policy)
        self.topic = topic
        self.seen = []

    async def __aenter__(self):
        await self.client.__aenter__()
        await self.client.subscribe_to_topic(self.topic, self.take)
        return self

    async def __aexit__(self, *error):
        await self.client.__aexit__(*error)

    async def take(self, message):
        self.seen.append(message)

    def all(self, event):
        return [message.payload for message in self.seen if str(message.event) == event]

    async def push(self, event, payload):
        """Pushes, and returns the answer."""
        ref = f"own-{next(numbers)}"
        join_ref = self.client.get_current_subscriptions()[self.topic].join_ref
        message = make_message(event, self.topic, ref, payload, join_ref)
        await self.client.get_protocol_handler().send_message(self.client.connection, message)
        return await until(
            f"{event} is answered",
            lambda: next((m.payload for m in self.seen if m.ref == ref and str(m.event) == "phx_reply"), None),
        )


async def refused(name, reason, version):
    member = Member("Ada", name, version)
    try:
        await member.__aenter__()
    except PHXTopicError as error:
        assert reason in str(error) and "Timed out" not in str(error), error
    else:
        raise AssertionError(f"{name} was joined")
    finally:
        await member.client.shutdown("over")


def topic():
    return f"room:python-{next(numbers)}"


OK = {"status": "ok", "response": {}}


async def version_1_joins_and_hears_the_room():
    async with Member("Ada", topic(), V1) as ada:
        [first, *_] = await until("roomState comes", lambda: ada.all("roomState"))
        assert [user["name"] for user in first["state"]["users"]] == ["Ada"], first
        await until("presence_state comes", lambda: ada.all("presence_state"))
        async with Member("Bob", ada.topic, V1) as bob:
            await until("Ada sees two", lambda: len(ada.all("roomState")[-1]["state"]["users"]) == 2)
            assert await bob.push("chat", {"message": "Grüße"}) == OK
            for member in (ada, bob):
                [line] = await until("the line comes", lambda member=member: member.all("chat"))
                assert (line["name"], line["message"]) == ("Bob", "Grüße"), line
            metas = lambda: [m for d in ada.all("presence_diff") for j in d["joins"].values() for m in j["metas"]]
            await until("a diff has Bob", lambda: any(meta["name"] == "Bob" and meta["phx_ref"] for meta in metas()))
        await until("Ada is alone", lambda: len(ada.all("roomState")[-1]["state"]["users"]) == 1)


async def version_1_leaves():
    async with Member("Ada", topic(), V1) as ada, Member("Bob", ada.topic, V1) as bob:
        await until("Ada sees two", lambda: len(ada.all("roomState")[-1]["state"]["users"]) == 2)
        await bob.client.unsubscribe_from_topic(bob.topic)
        await until("Ada is alone", lambda: len(ada.all("roomState")[-1]["state"]["users"]) == 1)


async def version_1_hears_errors():
    async with Member("Ada", topic(), V1) as ada:
        answer = await ada.push("chat", {"message": ""})
        assert answer["status"] == "error" and answer["response"]["reason"], answer
        await until("error comes", lambda: ada.all("error"))
        assert await ada.push("heartbeat", {}) == OK


async def version_2_joins_and_is_answered():
    async with Member("Ada", topic(), V2) as ada:
        await until("presence_state comes", lambda: ada.all("presence_state"))
        assert await ada.push("chat", {"message": "x"}) == OK
        assert (await ada.push("nothing", {}))["status"] == "error"
        await ada.client.unsubscribe_from_topic(ada.topic)


async def refused_joins_are_errors_of_the_client():
    for version in (V1, V2):
        await refused("room:", "", version)
    await refused("lobby:a", "unmatched topic", V1)


async def version_2_hears_that_a_topic_is_unmatched():
    # Phoenix answers with a null join_ref, so that this client waits in vain.
    await refused("lobby:a", "unmatched topic", V2)


async def heartbeats_are_acknowledged():
    acknowledged = asyncio.Event()
    url = f"{server.replace('http', 'ws', 1)}/socket/websocket?token={urllib.parse.quote(log_in('Ada'))}"
    for version in (V1, V2):
        acknowledged.clear()
        options = {"heartbeat_interval_s": 0.05, "heartbeat_dead_threshold_s": 5.0}
        async with PHXChannelsClient(
            url, "", protocol_version=version, on_heartbeat_ack=acknowledged.set, **options
        ):
            await asyncio.wait_for(acknowledged.wait(), PATIENCE)


async def client_comes_back_after_a_restart():
    async with Member("Ada", topic(), V1) as ada:
        await until("roomState comes", lambda: ada.all("roomState"))
        print(json.dumps({"control": "restart"}), flush=True)
        done = await asyncio.to_thread(sys.stdin.readline)
        assert done == "done\n", done
        await until("it is joined again", lambda: ada.client.is_topic_joined(ada.topic))
        assert await ada.push("chat", {"message": "back"}) == OK
        await until("the line comes", lambda: ada.all("chat"))


CHECKS = [
    version_1_joins_and_hears_the_room,
    version_1_leaves,
    version_1_hears_errors,
    version_2_joins_and_is_answered,
    refused_joins_are_errors_of_the_client,
    version_2_hears_that_a_topic_is_unmatched,
    heartbeats_are_acknowledged,
    client_comes_back_after_a_restart,
]


OURS = {version_2_hears_that_a_topic_is_unmatched}


async def main():
    failed = 0
    checks = [check for check in CHECKS if not (check in OURS and "--phoenix" in sys.argv)]
    for check in checks:
        line = {"check": check.__name__, "ok": True}
        try:
            await asyncio.wait_for(check(), 60)
        except Exception as error:
            line |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
            failed += 1
        print(json.dumps(line), flush=True)
    print(json.dumps({"checks": len(checks), "failed": failed}), flush=True)


asyncio.run(main())
