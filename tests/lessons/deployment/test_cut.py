"""The proxy that is killed: whoever is connected then is reset, and counted, also in the very moment; nothing is behind it."""

import asyncio
import socket
import time
from contextlib import ExitStack

import pytest
from leftovers import wait_until

from helpers.lessons.deployment import faults
from helpers.lessons.deployment.faults import Fault

REQUEST = b"POST /v1/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


def test_who_comes_in_the_moment_of_the_cut_is_reset_and_counted():
    """They connect and ask while the proxy is busy, so that it meets them and the cut at once."""
    with faults.proxy("http://127.0.0.1:9/v1") as remote, ExitStack() as stack:
        remote._loop.call_soon_threadsafe(time.sleep, 0.3)
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", remote.port), 5)) for _ in range(3)]
        for client in clients:
            client.sendall(REQUEST)
        remote.set(Fault("killed"))

        for client in clients:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert wait_until(lambda: remote.unread == 3, 5) and remote.received == []


def test_who_is_connected_and_has_not_asked_is_reset_and_counted():
    """As one whose request is still on its way; afterwards the port answers again."""
    with faults.proxy("http://127.0.0.1:9/v1") as remote:
        with socket.create_connection(("127.0.0.1", remote.port), 5) as client:
            client.sendall(REQUEST[:20])
            time.sleep(0.1)
            remote.set(Fault("killed"))
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert wait_until(lambda: remote.unread == 1, 5)
        remote.set(faults.HEALTHY)
        with socket.create_connection(("127.0.0.1", remote.port), 5) as client:
            client.sendall(REQUEST)
            assert client.recv(12) == b"HTTP/1.1 502"


def test_who_is_connected_and_has_nothing_to_ask_is_no_request():
    """A client opens its connections before it needs them: two are cut, in the moment or before, and nothing was lost."""
    with faults.proxy("http://127.0.0.1:9/v1") as remote, ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", remote.port), 5))]
        time.sleep(0.1)
        remote._loop.call_soon_threadsafe(time.sleep, 0.3)
        clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", remote.port), 5)))
        remote.set(Fault("killed"))

        for client in clients:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        remote.set(faults.HEALTHY)  # whatever was to be counted is
        assert remote.unread == 0 and remote.received == []
        assert remote.unasked == 2


def test_what_is_sent_into_a_connection_that_was_cut_is_seen_by_nobody_but_its_client():
    """It connects, the cut comes, it sends: broken for the client, and the proxy has counted a connection without a request."""
    with faults.proxy("http://127.0.0.1:9/v1") as remote, socket.create_connection(("127.0.0.1", remote.port), 5) as client:
        time.sleep(0.1)
        remote.set(Fault("killed"))
        with pytest.raises(OSError):
            client.sendall(REQUEST)
            client.recv(1)
        remote.set(faults.HEALTHY)
        assert (remote.unasked, remote.unread, remote.received) == (1, 0, [])


def test_a_request_that_lies_in_the_system_is_counted():
    """Connected and accepted before, asked while the proxy is busy: its bytes have come and were never read."""
    with faults.proxy("http://127.0.0.1:9/v1") as remote, socket.create_connection(("127.0.0.1", remote.port), 5) as client:
        time.sleep(0.1)
        remote._loop.call_soon_threadsafe(time.sleep, 0.3)
        time.sleep(0.05)
        client.sendall(REQUEST)
        asyncio.run_coroutine_threadsafe(remote._set(Fault("killed")), remote._loop).result(5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)

        assert wait_until(lambda: remote.unread + len(remote.received) == 1, 5)
