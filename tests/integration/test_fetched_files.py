"""Data files of web servers: whole or not at all, once, over https alone, and no secret anywhere."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.loopback import Fault, Loopback, Request, Response, status
from tests.proxy import Authority, Proxy
from trainer.data.fetch import limits, web
from trainer.data.fetch.addresses import Locator
from trainer.data.fetch.limits import VARIABLE
from trainer.data.read.origins import origin_beside
from trainer.errors import ConfigError, DataError
from trainer.runs.files import sha256_of

SITE, OTHER = "data.example.com", "cdn.example.com"
ADDRESS = f"https://{SITE}/sets/rows.jsonl"
TEXT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n' * 4000


class Files:
    """Files with ETags and ranges, and addresses that lead elsewhere."""

    def __init__(self) -> None:
        self.content = {"/sets/rows.jsonl": TEXT}
        self.leads = {
            "/moved": ADDRESS,
            "/far": f"https://{OTHER}/sets/rows.jsonl",
            "/plain": f"http://{SITE}/x",
            "/file": "file:///etc/passwd",
            "/inside": "https://127.0.0.1/x",
            "/circle": "/circle",
            **{f"/{number}": f"/{number + 1}" for number in range(9)},
        }
        self.etag: str | None = '"one"'

    def __call__(self, request: Request) -> Response:
        if there := self.leads.get(request.path):
            return Response(302, b"", {"Location": there})
        content = self.content.get(request.path)
        if content is None:
            return Response(404, b"no")
        headers = {"Content-Type": "text/plain"} | ({"ETag": self.etag} if self.etag else {})
        if self.etag and request.headers.get("if-none-match") == self.etag:
            return Response(304, b"", headers)
        wanted = request.headers.get("range")
        if wanted and request.headers.get("if-range") == self.etag:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            return Response(206, content[begin:], headers)
        return Response(200, content, headers)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "FIRST_WAIT_SECONDS", 0.01)
    with (
        Loopback(Files(), authority.context(SITE, OTHER)) as made,
        Proxy(authority, {"*.example.com": made.port}) as on,
    ):
        for name, value in on.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def fetched(address: str = ADDRESS, said: list[str] | None = None) -> Path:
    (file,) = Locator([].append if said is None else said.append, lambda _: pytest.fail("no workspace")).paths(address)
    return Path(file)


def refused(address: str = ADDRESS) -> str:
    with pytest.raises((DataError, ConfigError)) as raised:
        fetched(address)
    return str(raised.value)


def nothing_is_kept(folder: Path) -> bool:
    return [file.suffix for file in (folder / "cache" / "sources").iterdir()] == [".lock"]


def test_a_file_is_fetched_once_and_again_only_where_it_has_changed(server: Loopback) -> None:
    said: list[str] = []
    first = fetched(said=said)
    assert first.read_bytes() == TEXT
    assert first.name == "rows.jsonl"
    origin = origin_beside(first, sha256_of(first))
    assert origin is not None
    assert (origin.address, origin.revision, origin.num_bytes) == (ADDRESS, '"one"', len(TEXT))
    assert fetched(said=said) == first
    assert len(said) == 1
    assert server.requests[-1].headers["if-none-match"] == '"one"'
    server.handler.content["/sets/rows.jsonl"], server.handler.etag = TEXT * 2, '"two"'
    assert fetched(said=said).read_bytes() == TEXT * 2
    assert first.read_bytes() == TEXT


def test_a_connection_that_ends_early_is_continued_where_it_ended(server: Loopback) -> None:
    server.faults = [Fault("cut off", commits=True, broken="truncated", times=2)]
    assert fetched().read_bytes() == TEXT
    first, *others = [request.headers.get("range", "") for request in server.requests]
    begins = [int(one.removeprefix("bytes=").removesuffix("-")) for one in others]
    assert first == ""
    assert 0 < begins[0] < begins[1] < len(TEXT)


def test_a_file_that_changes_between_two_parts_is_fetched_from_its_start(server: Loopback) -> None:
    server.faults = [Fault("cut off", commits=True, broken="truncated")]
    served = server.handler

    def changing(request: Request) -> Response:
        if "range" in request.headers:
            served.content["/sets/rows.jsonl"], served.etag = TEXT[::-1], '"two"'
        return served(request)

    server.handler = changing
    assert fetched().read_bytes() == TEXT[::-1]


def test_a_server_without_etags_is_asked_from_the_start(server: Loopback) -> None:
    server.handler.etag = None
    server.faults = [Fault("cut off", commits=True, broken="truncated")]
    assert fetched().read_bytes() == TEXT
    assert all("range" not in request.headers for request in server.requests)


def test_a_file_that_never_arrives_whole_leaves_nothing(server: Loopback, tmp_path: Path) -> None:
    server.handler.etag = None
    server.faults = [Fault("cut off", commits=True, broken="truncated", times=99)]
    assert "cannot be fetched (" in (said := refused())
    assert f"of {len(TEXT):,} bytes), expected a whole file; nothing was kept, try again" in said
    assert nothing_is_kept(tmp_path)


def test_a_wrong_length_is_no_whole_file(server: Loopback, tmp_path: Path) -> None:
    server.handler = lambda request: Response(200, b"short", {"Content-Length": "9", "Connection": "close"})
    assert "after 5 of 9 bytes" in refused()
    assert nothing_is_kept(tmp_path)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(code: int, server: Loopback) -> None:
    server.faults = [Fault(str(code), answer=status(code), times=3)]
    assert fetched().read_bytes() == TEXT


REFUSED = {
    404: "does not exist (the server answered 404), expected a file; correct the address",
    403: "may not be read (the server answered 403), expected a file that needs no sign-in",
    418: "cannot be fetched (the server answered 418), expected 200 and the file",
    503: "cannot be fetched (the server answered 503), expected a whole file; nothing was kept",
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_refusal_is_told(code: int, server: Loopback, tmp_path: Path) -> None:
    server.faults = [Fault(str(code), answer=status(code), times=99)]
    assert refused().startswith(f"{ADDRESS}: {REFUSED[code]}")
    assert nothing_is_kept(tmp_path)


def test_a_server_that_is_not_there_is_told(server: Loopback) -> None:
    assert refused("https://elsewhere.test/x").startswith("https://elsewhere.test/x: cannot be fetched (Tunnel ")


@pytest.mark.parametrize("path", ["/moved", "/far"])
def test_a_redirect_to_https_is_followed_and_the_address_kept_is_the_one_that_was_written(
    path: str, server: Loopback
) -> None:
    found = fetched(f"https://{SITE}{path}")
    assert found.read_bytes() == TEXT
    origin = origin_beside(found, sha256_of(found))
    assert origin is not None
    assert origin.address == f"https://{SITE}{path}"


LED_ASTRAY = {
    "/plain": "leads to an address of http://, expected https:// all the way",
    "/file": "leads in a circle, or to no address of https:// (the server answered 302), expected a file",
    "/inside": "leads into a private network (127.0.0.1), expected a public server",
    "/circle": "leads in a circle, or to no address of https:// (the server answered 302), expected a file",
    "/0": "leads on more than 5 times, expected a file",
}


@pytest.mark.parametrize("path", LED_ASTRAY)
def test_a_redirect_elsewhere_is_refused(path: str, server: Loopback, tmp_path: Path) -> None:
    assert refused(f"https://{SITE}{path}").startswith(f"https://{SITE}{path}: {LED_ASTRAY[path]}")
    assert nothing_is_kept(tmp_path)


@pytest.mark.parametrize(
    "address",
    [f"https://me:SECRET@{SITE}/x", f"https://{SITE}/x?sv=2024&sig=SECRET", f"https://{SITE}/x?X-Amz-Signature=SECRET",
     f"https://{SITE}/x?access_token=SECRET"],
)  # fmt: skip
def test_an_address_with_a_secret_is_refused_before_it_is_asked_and_never_shown(address: str, server: Loopback) -> None:
    said = refused(address)
    assert said.startswith(f"https://{SITE}/x: the address holds ")
    assert "SECRET" not in said
    assert not server.requests


def test_a_file_that_is_too_large_is_refused_by_what_the_server_says(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "1000")
    assert refused().startswith(f"{ADDRESS}: holds {len(TEXT):,} bytes, expected at most 1,000 bytes; divide it")
    assert nothing_is_kept(tmp_path)


def test_a_file_without_room_on_the_disk_is_refused_before_it_arrives(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(free=limits.SPARE_BYTES + len(TEXT) - 1)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda path: full)
    said = f"{ADDRESS}: holds {len(TEXT):,} bytes, expected at most the {full.free:,} that are free on the disk"
    assert refused().startswith(said)
    assert nothing_is_kept(tmp_path)
    full.free += 1
    assert fetched().read_bytes() == TEXT


def test_a_compressed_file_is_unpacked_and_both_are_known(server: Loopback) -> None:
    packed = gzip.compress(TEXT)
    server.handler.content["/sets/rows.jsonl.gz"] = packed
    found = fetched(f"{ADDRESS}.gz")
    assert (found.name, found.read_bytes()) == ("rows.jsonl", TEXT)
    origin = origin_beside(found, sha256_of(found))
    assert origin is not None
    assert origin.num_bytes == len(packed)


def test_the_check_reads_an_address(server: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer.cli.main import trainer_app

    with pytest.raises(SystemExit) as end:
        trainer_app(args=["data", "check", ADDRESS], standalone_mode=True)
    shown = capsys.readouterr()
    assert end.value.code == 0
    assert "4,000 rows, 0 errors" in shown.out
    assert f"{ADDRESS}: fetched {len(TEXT):,} bytes, sha256 " in shown.err.replace("\n", "")


def test_what_a_command_makes_of_an_address_goes_into_this_folder(server: Loopback, tmp_path: Path) -> None:
    from trainer.cli.main import trainer_app

    server.handler.content["/sets/rows.csv"] = b"question,answer\nHi,Hello\n"
    with pytest.raises(SystemExit) as end:
        trainer_app(args=["data", "convert", f"https://{SITE}/sets/rows.csv"], standalone_mode=True)
    assert end.value.code == 0
    assert (tmp_path / "rows.chat.jsonl").read_text().count("\n") == 1
