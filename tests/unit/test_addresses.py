"""Where webhooks may go."""

import socket

import httpx
import pytest

from service.addresses import ForbiddenAddressError, UnknownAddressError, address_of, checked_url, is_public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://017700000001/",
        "http://0.0.0.0/", "http://0/", "http://10.0.0.1/", "http://192.168.1.1:8080/x", "http://172.16.0.1/",
        "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/", "http://198.18.0.1/", "http://224.0.0.1/",
        "http://255.255.255.255/", "http://[::1]/", "http://[::]/", "http://[fe80::1]/", "http://[fc00::1]/",
        "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[ff02::1]/",
        "http://localhost/", "https://localhost:8000/",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="not a public one"):
        checked_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with"), ("x", "begins with"), ("//example.org", "begins with"), ("ftp://1.1.1.1/", "begins with"),
        ("file:///etc/passwd", "begins with"), ("http://", "begins with"), ("http:///x", "begins with"),
        ("gopher://1.1.1.1/", "begins with"), ("http://a:b@1.1.1.1/", "passwords"),
        ("http://1.1.1.1:99999/", "port"), ("http://1.1.1.1:0/", "port"),
        ("http://1.1.1.1/" + "x" * 2000, "letters"), ("http://1.1.1.1/\x00", "not a URL"),
        ("http://" + "a" * 64 + ".org/", "not a|no host"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ForbiddenAddressError, match=reason):
        checked_url(url)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)
    host = f"[{address}]" if ":" in address else address
    url = checked_url(f"https://{host}/hook?x=1")
    assert address_of(url) == str(url.host)


def test_a_host_that_the_operator_has_named_may_be_private() -> None:
    assert checked_url("http://127.0.0.1:9/x", ["127.0.0.1"]).port == 9
    with pytest.raises(ForbiddenAddressError):
        checked_url("http://127.0.0.2:9/x", ["127.0.0.1"])


def test_a_name_that_cannot_be_looked_up_just_now_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only part that cannot be had for real here: a name server's answers."""

    def unavailable(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", unavailable)
    url = checked_url("https://example.org/hook")
    with pytest.raises(UnknownAddressError):
        address_of(url)


def test_a_name_with_one_address_that_is_not_public_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(2, 1, 6, "", (address, 80)) for address in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(ForbiddenAddressError):
        address_of(httpx.URL("http://example.org/"))
