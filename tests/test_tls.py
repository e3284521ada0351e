"""The main port with TLS: real clients, certificates as openssl makes them, and who comes without."""

import asyncio
import ctypes
import ctypes.util
import io
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import structlog
from hypha_rpc import connect_to_server

from dockscale.config import Settings
from dockscale.doctor import examine
from dockscale.engine.memory import MemoryEngine
from dockscale.server import CannotStart
from tests.support.certificates import Files, make, openssl
from tests.support.http1 import read_answer
from tests.support.origin import Spoken, client, idle, on_head, replies, staged
from tests.support.worker import rpc_world, work
from tests.support.world import World, serving, until, world

GET = b"GET /a HTTP/1.1\r\nHost: web.localhost\r\n\r\n"
LAST = b"GET /a HTTP/1.1\r\nHost: web.localhost\r\nConnection: close\r\n\r\n"
MEGABYTES = 30 * 2**20


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make(tmp_path)


def shown(it: World) -> bytes | None:
    """The certificate that a client that comes now gets."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", it.dockscale.main_port), 5)
    with trusting.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True)


async def until_shown_another(it: World, before: bytes | None) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(shown, it) == before:
            await asyncio.sleep(0.1)


async def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "-sS", "--max-time", "20", *arguments]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)


# What clients get.


async def test_an_app_is_told_https_and_answers_over_a_connection_that_is_kept(files: Files) -> None:
    async with world(**files.settings) as it:
        for _ in range(3):
            status, told = await it.get("/x")
            assert status == 200
            assert ["X-Forwarded-Proto", "https"] in told["headers"]
        assert len(it.dockscale.main.clients) == 1


@pytest.mark.parametrize("version", ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"])
async def test_curl_gets_an_answer_with_http_1_1_alone(files: Files, version: str) -> None:
    async with world(**files.settings) as it:
        url = f"https://localhost:{it.dockscale.main_port}/public/apps/web/x"
        write = ["-o", os.devnull, "-w", "%{http_code} %{http_version}"]
        got = await curl("--cacert", str(files.certificate), "--http2", *version.split(), *write, url)

    assert (got.stdout, got.returncode) == ("200 1.1", 0), got.stderr


async def test_old_versions_of_tls_are_refused(files: Files) -> None:
    async with world(**files.settings) as it:
        old = ["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]
        got = await curl("--cacert", str(files.certificate), *old, f"https://localhost:{it.dockscale.main_port}/")

        assert "alert protocol version" in got.stderr
        await until(lambda: not it.dockscale.main.clients)


async def test_a_client_may_change_its_keys_at_any_time(files: Files) -> None:
    async with world(**files.settings) as it:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{it.dockscale.main_port}", "-crlf", "-CAfile"]
        pipe = asyncio.subprocess.PIPE
        changing = await asyncio.create_subprocess_exec(
            *command, files.certificate, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        assert changing.stdin is not None
        assert changing.stdout is not None
        # A line with a K alone is its command to do so, and to ask for the same (RFC 8446 section 4.6.3).
        for line in (b"K", b"GET /x HTTP/1.1", b"Host: web.localhost", b"K", b"Connection: close", b""):
            changing.stdin.write(line + b"\n")
            await asyncio.sleep(0.05)  # it reads what comes at once as one
        async with asyncio.timeout(10):
            said = await changing.stdout.readuntil(b"HTTP/1.1 200 OK")
            await changing.communicate()

    assert said.count(b"KEYUPDATE") == 2


async def test_large_bodies_pass_both_ways_at_once(files: Files) -> None:
    async with world(**files.settings) as it:
        sent = os.urandom(2**20) * (MEGABYTES // 2**20)
        host = {"Host": "web.localhost"}
        async with it.session.post(
            it.base + "/echo", data=io.BytesIO(sent), headers=host, ssl=it.trust or True
        ) as answer:
            got = await answer.read()

    assert got == sent


async def test_a_slow_client_holds_the_instance_back_and_misses_nothing(files: Files) -> None:
    body = os.urandom(2**20) * 9
    async with staged(client_timeout=5.0, **files.settings) as (it, origin), client(it, buffer=4096) as wire:
        origin.script = replies(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wire.transport.pause_reading()
        wire.send(LAST)
        await until(lambda: any(each.full for each in it.dockscale.main.clients), "it has all it can take")
        assert max(each.transport.get_write_buffer_size() for each in it.dockscale.main.clients) < 2**20

        wire.transport.resume_reading()
        got = read_answer(await wire.over())

    assert got.body == body


async def test_a_client_that_rests_costs_little_however_much_it_had(files: Files) -> None:
    """Its own side is a socket alone, so that what this process holds is dockscale's."""
    async with world(**files.settings) as it:
        trust, port = it.trust, it.dockscale.main_port
        assert trust is not None

        def have(clients: int) -> list[ssl.SSLSocket]:
            having = []
            for _ in range(clients):
                plain = socket.create_connection(("127.0.0.1", port), 20)
                having.append(trust.wrap_socket(plain, server_hostname="localhost"))
                having[-1].sendall(b"POST /echo HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 1000000\r\n\r\n")
                having[-1].sendall(b"x" * 1_000_000)
                end = b""
                while not end.endswith(b"\r\n0\r\n\r\n"):
                    end = end[-10:] + having[-1].recv(2**18)
            return having

        resting = await asyncio.to_thread(have, 10)
        before = resident()
        resting += await asyncio.to_thread(have, 100)
        each = (resident() - before) / 100
        for client in resting:
            client.close()

    assert each < 100_000


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_websocket_is_wss_and_is_told_when_its_instance_goes(files: Files) -> None:
    async with world(**files.settings) as it:
        url = it.base.replace("http", "ws", 1) + "/ws"
        host = {"Host": "web.localhost"}
        async with it.session.ws_connect(url, headers=host, ssl=it.trust or True) as ws:
            await ws.receive_str()
            await ws.send_bytes(b"x" * 1_000_000)
            assert len(await ws.receive_bytes()) == 1_000_000

            it.dockscale.entry.close_tunnels()

            assert (await ws.receive()).data == 1012


async def test_rpc_clients_come_over_https_and_instances_without_tls_to_a_port_of_their_own(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.certificate))
    told: list[str] = []

    async def note_and_work(env: Mapping[str, str]) -> None:
        told.append(env["HYPHA_SERVER_URL"])
        await work(env)

    async with rpc_world(runs=note_and_work, **files.settings) as it:
        url = f"https://localhost:{it.dockscale.main_port}"
        api = await connect_to_server({"server_url": url})
        try:
            bot = await api.get_service("default@bot")
            assert len(await bot.big(700_000)) == 700_000
            assert api.config.public_base_url == url
        finally:
            await api.disconnect()

    [own] = told
    assert own.startswith("http://127.0.0.1:")
    assert own != f"http://127.0.0.1:{it.dockscale.main_port}"


async def test_addresses_that_dockscale_tells_are_https(files: Files) -> None:
    async with (
        world(domain="example.org", **files.settings) as it,
        it.session.get(it.admin + "/api/apps/web") as answer,
    ):
        urls, port = (await answer.json())["urls"], it.dockscale.main_port

    assert urls == [f"https://web.example.org:{port}/", f"https://example.org:{port}/public/apps/web/"]


# Who does not what TLS asks for.


async def test_who_comes_without_tls_is_told_so_and_counted(files: Files) -> None:
    async with world(**files.settings) as it:
        got = await curl("-w", "%{http_code}", f"http://127.0.0.1:{it.dockscale.main_port}/public/apps/web/")

        told = json.loads(got.stdout.removesuffix("400"))
        assert (told["error"], it.dockscale.entry.refused[400]) == ("tls_only", 1)
        assert it.states() == {}, "it woke nobody"
        await until(lambda: not it.dockscale.main.clients)


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_handshake_that_does_not_come_ends_in_time_and_counts_until_then(files: Files, sent: bytes) -> None:
    async with world(header_timeout=0.5, max_connections=1, **files.settings) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.dockscale.main_port)
        writer.write(sent)
        await until(lambda: len(it.dockscale.main.clients) == 1)

        assert (await it.get("/x"))[0] == 200, "it had its turn once the first one was cut off"
        assert await _ended(reader)
        writer.close()


async def _ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def test_a_handshake_that_is_none_is_told_so_and_ended(files: Files) -> None:
    async with world(**files.settings) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.dockscale.main_port)
        writer.write(b"\x16\x03\x01\x00\x05hello")
        async with asyncio.timeout(10):
            alert = await reader.read()
        writer.close()

        assert alert[:1] == b"\x15", "an alert says what was wrong (RFC 8446 section 6)"
        await until(lambda: not it.dockscale.main.clients)


async def test_a_client_that_breaks_off_in_the_handshake_leaves_nothing_behind(files: Files) -> None:
    async with world(**files.settings) as it:
        hello, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        half = ssl.create_default_context().wrap_bio(hello, to_server, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            half.do_handshake()
        _, writer = await asyncio.open_connection("127.0.0.1", it.dockscale.main_port)
        writer.write(to_server.read())
        await until(lambda: len(it.dockscale.main.clients) == 1)
        writer.close()

        await until(lambda: not it.dockscale.main.clients)
        assert (await it.get("/x"))[0] == 200


async def test_a_broken_record_ends_the_connection_and_gives_the_place_back(files: Files) -> None:
    async with staged(**files.settings) as (it, origin), client(it) as wire:
        origin.script = on_head(then=lambda _: None)
        wire.send(GET)
        await until(lambda: it.app().pool.in_flight == 1)
        with socket.socket(fileno=os.dup(wire.transport.get_extra_info("socket").fileno())) as below:
            below.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)

        await wire.over()
        await idle(it)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("broken", [False, True])
async def test_who_leaves_or_breaks_off_without_having_taken_what_waits_keeps_no_place(
    files: Files, tls: bool, broken: bool
) -> None:
    async with (
        staged(client_timeout=0.5, **files.settings if tls else {}) as (it, origin),
        client(it, buffer=4096) as wire,
    ):

        def waits() -> bool:
            clients = it.dockscale.main.clients
            return any(each.connected and each.transport.get_write_buffer_size() for each in clients)

        async def fill_a_little(spoken: Spoken) -> None:
            await spoken.head()
            spoken.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while not waits():
                spoken.send(b"x" * 10_000)
                await asyncio.sleep(0.001)
            await asyncio.Event().wait()  # it says nothing more, and does not end

        origin.script = fill_a_little
        wire.transport.pause_reading()
        wire.send(GET)
        await until(waits)
        assert not any(each.full for each in it.dockscale.main.clients), "it is not so much that it would be waited for"
        with socket.socket(fileno=os.dup(wire.transport.get_extra_info("socket").fileno())) as below:
            if broken:
                below.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            below.shutdown(socket.SHUT_WR)

        await idle(it)


async def test_an_answer_that_is_cut_off_is_no_clean_end(files: Files) -> None:
    async with staged(**files.settings) as (it, origin), client(it) as wire:
        origin.script = on_head(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then=lambda wire: wire.close())
        wire.send(GET)
        await wire.over()

    assert wire.ended == "reset"


async def test_who_is_silent_for_too_long_is_told_of_a_clean_end(files: Files) -> None:
    async with world(keepalive_timeout=0.3, **files.settings) as it:
        assert it.trust is not None
        plain = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", it.dockscale.main_port), 10)
        strict = await asyncio.to_thread(
            it.trust.wrap_socket, plain, server_hostname="localhost", suppress_ragged_eofs=False
        )
        strict.sendall(GET)
        assert (await asyncio.to_thread(strict.recv, 2**16)).startswith(b"HTTP/1.1 200")
        while await asyncio.to_thread(strict.recv, 2**16):
            pass  # an end without a word would be an error
        strict.close()


async def fill(wire: Spoken) -> None:
    """Answer with so much that its client takes no more, and wait."""
    await wire.head()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 20_000_000)
    await wire.until(lambda: wire.lost or wire.ended)


async def test_who_makes_tls_talk_and_does_not_listen_is_cut_off(files: Files) -> None:
    """A client may ask for new keys at any time, and each time is due an answer (RFC 8446 section 4.6.3)."""
    async with staged(**files.settings) as (it, origin):
        origin.script = fill
        asking = await asyncio.to_thread(Asking, it.dockscale.main_port)
        asking.send(GET)
        await until(lambda: any(each.full for each in it.dockscale.main.clients), "it has all it can take")
        [client] = it.dockscale.main.clients
        size = client.transport.get_write_buffer_size()

        asked = await asyncio.to_thread(asking.ask_for_new_keys, 100_000)

        assert asked < 100_000
        assert client.transport.get_write_buffer_size() - size < 2**18
        await idle(it)
        asking.close()


class Asking:
    """A TLS client that asks for new keys, which Python's own cannot: OpenSSL's functions, one for one."""

    def __init__(self, port: int) -> None:
        self._it = ctypes.CDLL(ctypes.util.find_library("ssl"))
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(self._it, name).restype = ctypes.c_void_p
        self._socket = socket.create_connection(("127.0.0.1", port))
        context = self._it.SSL_CTX_new(ctypes.c_void_p(self._it.TLS_client_method()))
        self._ssl = ctypes.c_void_p(self._it.SSL_new(ctypes.c_void_p(context)))
        self._it.SSL_set_fd(self._ssl, self._socket.fileno())
        assert self._it.SSL_connect(self._ssl) == 1

    def send(self, data: bytes) -> None:
        assert self._it.SSL_write(self._ssl, data, len(data)) == len(data)

    def ask_for_new_keys(self, most: int) -> int:
        """Ask again and again, and return how often that went out."""
        for asked in range(most):
            self._it.SSL_key_update(self._ssl, 1)
            if self._it.SSL_do_handshake(self._ssl) != 1:
                return asked
        return most

    def close(self) -> None:
        self._socket.close()


async def test_a_handshake_under_way_does_not_keep_it_from_ending(files: Files) -> None:
    async with world(header_timeout=600.0, **files.settings) as it:
        half = [await asyncio.open_connection("127.0.0.1", it.dockscale.main_port) for _ in range(2)]
        half[0][1].write(b"\x16\x03\x01\x02\x00\x01")
        await until(lambda: len(it.dockscale.main.clients) == 2)
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(20):
                await it.dockscale.main.close(600.0)

        assert logs == [], "nobody had to be cut off"
        for reader, writer in half:
            assert await _ended(reader)
            writer.close()


async def test_idle_clients_that_do_not_listen_do_not_keep_it_from_ending(files: Files) -> None:
    """As programs do that keep a connection for their next request, and look at it only then."""
    async with world(shutdown_timeout=600.0, **files.settings) as it:
        assert it.trust is not None
        plain = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", it.dockscale.main_port), 5)
        sleeping = await asyncio.to_thread(it.trust.wrap_socket, plain, server_hostname="localhost")
        await until(lambda: any(each.connected for each in it.dockscale.main.clients))
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(20):
                await it.dockscale.main.close(600.0)
        assert [each for each in logs if each["event"] == "connections_cut"] == []
        assert await asyncio.to_thread(sleeping.recv, 1) == b"", "it was told of the end (RFC 8446 section 6.1)"
        sleeping.close()


# The certificate.


async def test_a_renewed_certificate_is_shown_without_cutting_a_connection(files: Files, tmp_path: Path) -> None:
    async with world(**files.settings) as it:
        assert (await it.get("/x"))[0] == 200
        [kept] = it.dockscale.main.clients
        before = await asyncio.to_thread(shown, it)

        files.sign_anew(60)

        await until_shown_another(it, before)
        assert (await it.get("/x"))[0] == 200
        assert kept in it.dockscale.main.clients


async def test_links_that_lead_elsewhere_are_followed_as_certbot_makes_them(tmp_path: Path) -> None:
    first, second = make(tmp_path, "first"), make(tmp_path, "second")
    live = Files(tmp_path / "fullchain.pem", tmp_path / "privkey.pem")

    def lead_to(made: Files) -> None:
        for link, target in ((live.key, made.key), (live.certificate, made.certificate)):
            fresh = link.with_suffix(".new")
            fresh.symlink_to(target)
            fresh.replace(link)

    lead_to(first)
    async with world(**live.settings) as it:
        before = await asyncio.to_thread(shown, it)
        lead_to(second)
        await until_shown_another(it, before)


def lose(files: Files) -> None:
    files.certificate.unlink()


def damage(files: Files) -> None:
    files.key.write_text(files.key.read_text()[:80])


def end(files: Files) -> None:
    files.sign_anew(-1)


@pytest.mark.parametrize("spoil", [lose, damage, end])
async def test_a_new_file_that_is_of_no_use_leaves_the_old_certificate_in_use_and_is_told(
    files: Files, spoil: Callable[[Files], None]
) -> None:
    good = {path: path.read_bytes() for path in (files.certificate, files.key)}
    with structlog.testing.capture_logs() as logs:
        async with world(**files.settings) as it:
            before = await asyncio.to_thread(shown, it)
            spoil(files)
            await until(lambda: any(each["event"] == "certificate_refused" for each in logs), "it is told")
            assert (await it.get("/x"))[0] == 200
            assert await asyncio.to_thread(shown, it) == before

            for path, content in good.items():
                path.write_bytes(content)
            await until(lambda: logs[-1]["event"] == "certificate_taken", "what is good again is taken")


async def test_files_that_are_replaced_one_after_the_other_are_taken_together_and_without_complaint(
    files: Files, tmp_path: Path
) -> None:
    fresh = make(tmp_path, "fresh")
    with structlog.testing.capture_logs() as logs:
        async with world(**files.settings) as it:
            for _ in range(3):
                before = await asyncio.to_thread(shown, it)
                await asyncio.sleep(0.6)  # from the look that took the ones before: the next falls in between
                files.certificate.write_bytes(fresh.certificate.read_bytes())
                await asyncio.sleep(0.5)
                files.key.write_bytes(fresh.key.read_bytes())
                await until_shown_another(it, before)
                fresh = make(tmp_path, "fresh")

    assert [each for each in logs if each["event"] == "certificate_refused"] == []


async def test_a_certificate_that_is_not_valid_yet_is_taken_when_it_is_and_told_of_once(files: Files) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world(**files.settings) as it:
            before = await asyncio.to_thread(shown, it)
            files.begin_in(7)
            await until_shown_another(it, before)

    told = [each["error"] for each in logs if each["event"] == "certificate_refused"]
    assert len(told) == 1
    assert "certificate is not yet valid" in told[0]


async def test_a_renewed_certificate_may_have_comments_in_any_encoding(files: Files) -> None:
    async with world(**files.settings) as it:
        for encoding in ("utf-8", "latin-1"):
            before = await asyncio.to_thread(shown, it)
            files.sign_anew(60)
            files.certificate.write_bytes("Aussteller: Müller\n".encode(encoding) + files.certificate.read_bytes())
            await until_shown_another(it, before)


async def test_a_file_may_hold_both_and_lines_may_end_as_on_windows(files: Files) -> None:
    both = files.certificate.with_name("both.pem")
    both.write_bytes((files.certificate.read_bytes() + files.key.read_bytes()).replace(b"\n", b"\r\n"))

    async with world(**Files(both, both).settings) as it:
        assert (await it.get("/x"))[0] == 200


async def test_a_session_is_resumed_until_the_certificate_changes_and_begun_anew_then(files: Files) -> None:
    async with world(**files.settings) as it:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

        def come(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            plain = socket.create_connection(("127.0.0.1", it.dockscale.main_port), 10)
            with trusting.wrap_socket(plain, session=session) as connection:
                connection.sendall(LAST)
                assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
                return connection.session, connection.session_reused

        session, _ = await asyncio.to_thread(come, None)
        assert (await asyncio.to_thread(come, session))[1] is True
        before = await asyncio.to_thread(shown, it)
        files.sign_anew(60)
        await until_shown_another(it, before)

        assert (await asyncio.to_thread(come, session))[1] is False


async def starting(**settings: str) -> str:
    """Why dockscale does not start."""
    with pytest.raises(CannotStart) as refused:
        async with serving(MemoryEngine(), **settings):
            pass
    return str(refused.value)


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key"])
async def test_one_file_without_the_other_is_an_error(files: Files, name: str) -> None:
    told = await starting(**{name: files.settings[name]})

    assert f"DOCKSCALE_{name.upper()} is set" in told
    assert told.endswith("set both, or neither")


async def test_files_that_cannot_be_used_are_named_with_what_to_do(tmp_path: Path) -> None:
    own, other, ended = make(tmp_path), make(tmp_path, "other"), make(tmp_path, "ended")
    ended.sign_anew(-1)
    locked, half, pipe = tmp_path / "locked.key", tmp_path / "half.pem", tmp_path / "pipe"
    os.mkfifo(pipe)
    weak = Files(tmp_path / "weak.pem", tmp_path / "weak.key")
    short = ("-newkey", "rsa:1024", "-noenc", "-subj", "/CN=weak")
    openssl("req", "-x509", *short, "-out", weak.certificate, "-keyout", weak.key)
    openssl("pkey", "-in", own.key, "-aes256", "-passout", "pass:secret", "-out", locked)
    half.write_text(own.certificate.read_text()[:200])
    cases = {
        (tmp_path / "none.pem", own.key): ("none.pem cannot be read (No such file", "name a PEM file"),
        (tmp_path, own.key): ("cannot be read (it is no file", "name a PEM file"),
        (own.certificate, pipe): ("pipe cannot be read (it is no file", "name a PEM file"),
        (weak.certificate, weak.key): ("weak.key is damaged or too weak", "make them anew"),
        (own.certificate, own.certificate): ("own.pem holds no `-----PRIVATE KEY", "name the PEM file that does"),
        (own.certificate, other.key): ("other.key is not the key of", "made together"),
        (own.certificate, locked): ("locked.key is encrypted", "openssl pkey -in"),
        (ended.certificate, ended.key): ("ended.pem would be refused by clients: certificate has expired", "renew it"),
        (half, own.key): ("half.pem or", "is damaged"),
    }
    for (certificate, key), expected in cases.items():
        told = await starting(tls_certificate=str(certificate), tls_key=str(key))
        assert [part for part in expected if part not in told] == [], told


def test_the_doctor_tells_whom_a_certificate_is_for_and_when_it_ends(files: Files, tmp_path: Path) -> None:
    def found() -> list[tuple[bool, str]]:
        settings = Settings(engine="tcp://127.0.0.1:9", port=0, admin_port=0, **files.settings)
        return [(each.good, each.text) for each in examine(settings, None, "") if "certificate" in each.text]

    assert found() == [(True, "the certificate is for localhost, *.localhost, 127.0.0.1, and good for 29 days")]
    files.sign_anew(3)
    assert found()[0][0] is False
    make(tmp_path, names="email:me@example.org,DNS:localhost")
    assert found()[0][1].startswith("the certificate is for localhost, and")
    openssl("req", "-x509", "-key", files.key, "-subj", "/CN=localhost", "-days", "30", "-out", files.certificate)
    assert found() == [(False, "the certificate is for no name, and good for 29 days")]
    files.key.unlink()
    assert found() == [(False, "the main port has no certificate to show")]
