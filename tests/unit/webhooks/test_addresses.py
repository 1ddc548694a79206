"""Where webhooks may go. What is public is only asked of the rule: nothing is sent."""

import ipaddress
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.webhooks.addresses import (
    Allowance,
    ForbiddenAddressError,
    UnknownAddressError,
    check_addresses,
    parse_url,
    port_of,
)
from service.webhooks.lookup import begin_look_up, checked_url
from service.webhooks.networks import is_globally_reachable

NONE = Allowance()
LOOPBACK = Allowance(hosts=["127.0.0.1"])


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "168.63.129.16", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.170", "192.0.0.192", "192.0.2.1",
        "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1", "198.18.0.1", "198.19.255.255",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::1.1.1.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:192.0.0.192",
        "::ffff:0:127.0.0.1", "::ffff:0:1.1.1.1", "64:ff9b::7f00:1", "64:ff9b::1.1.1.1", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1",
        "2001:db8::1", "2002:7f00:1::", "2002:101:101::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1",
        "2a00::5efe:7f00:1", "2a00::200:5efe:7f00:1", "4000::1", "5f00::1", "8000::1", "fc00::1", "fd00:ec2::254",
        "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "feff::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_what_is_not_on_the_open_internet_is_refused(address: str) -> None:
    assert not is_globally_reachable(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ForbiddenAddressError):
        checked_url(f"https://{host}/", NONE)
    with pytest.raises(ForbiddenAddressError, match="not a public one"):
        check_addresses("example.org", ["1.1.1.1", address], NONE)  # one such among a name's addresses is enough


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0", "126.255.255.255",
        "128.0.0.0", "168.63.129.15", "172.15.255.255", "172.32.0.0", "192.0.1.0", "198.17.255.255", "198.20.0.0",
        "223.255.255.255", "::ffff:1.1.1.1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700:4700::1111",
        "2a00:1450:4001::1", "3ffd::1",
    ],
)  # fmt: skip
def test_what_is_on_it_is_not(address: str) -> None:
    assert is_globally_reachable(address)
    host = f"[{address}]" if ":" in address else address
    url = checked_url(f"https://{host}/hook?x=1", NONE)
    assert ipaddress.ip_address(begin_look_up(url).result(0)[0]) == ipaddress.ip_address(address)


@given(st.ip_addresses())
def test_nothing_passes_that_pythons_own_table_knows_to_be_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_globally_reachable(str(address)):
        assert address.is_global or getattr(address, "ipv4_mapped", None)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with"), ("x", "begins with"), ("//example.org", "begins with"), ("ftp://1.1.1.1/", "begins with"),
        ("file:///etc/passwd", "begins with"), ("http://", "begins with"), ("http:1.1.1.1", "begins with"),
        (" http://1.1.1.1/", "begins with"), ("gopher://1.1.1.1/", "begins with"), ("http:///x", "there must be"),
        ("http://a:b@1.1.1.1/", "passwords"), ("http://a@1.1.1.1/", "passwords"), ("http://@1.1.1.1/", "passwords"),
        ("http://1.1.1.1#@x/", "'#'"), ("http://1.1.1.1/#x", "'#'"), ("http://1.1.1.1/#", "'#'"),
        ("http://1.1.1.1\\@x/", "'#'"), ("http://1.1.1.1/" + "x" * 2000, "letters"),
        ("http://1.1.1.1/\x00", "not a URL"), ("http://1.1.1.1/a\r\nb: c", "not a URL"), ("http://1.1.1.1/\x7f", "not"),
        ("http://1.1.1.1/\ud800", "not a URL"), ("http://xn--/", "not a name"), ("http://xn--/x", "not a name"),
        ("http://xn--zzzzzzzz.org/", "not a name"), ("http://ⓛocalhost/", "not a name"),
        ("http://\uff11\uff12\uff17.0.0.1/", "not a name"), ("http://" + "a" * 64 + ".org/", "1 to 63"),
        ("http://" + "ü" * 64 + ".org/", "not a"), ("http://" + "a." * 127 + "org/", "253"),
        ("http://a..b/", "1 to 63"),
        ("http://.a/", "1 to 63"), ("http://./", "1 to 63"), ("http://-a.org/", "1 to 63"),
        ("http://a b/", "there must"),
        ("http://a%00b/", "there must"), ("http://a%2eb/", "there must"), ("http://[fe80::1%25eth0]/", "there must"),
        ("http://[fe80::1%eth0]/", "there must"), ("http://[::1/", "there must"), ("http://[1.1.1.1]/", "not"),
        ("http://[v1.a]/", "there must"), ("http://127.1/", "four decimal"), ("http://2130706433/", "four decimal"),
        ("http://0x7f000001/", "four decimal"), ("http://017700000001/", "four decimal"), ("http://0/", "four decimal"),
        ("http://0x7f.1/", "four decimal"), ("http://0x/", "four decimal"), ("http://1.1.1.1./", "four decimal"),
        ("http://0177.0.0.1/", "not a URL"), ("http://example.0x7f/", "four decimal"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_told_why(url: str, reason: str) -> None:
    with pytest.raises(ForbiddenAddressError, match=reason):
        checked_url(url, NONE)


@given(
    st.text(max_size=60), st.sampled_from(["{}", "http://{}", "https://{}/", "http://a{}.org/", "http://1.1.1.1:{}/"])
)
def test_whatever_is_sent_is_taken_or_refused(text: str, form: str) -> None:
    try:
        parsed = parse_url(form.format(text), NONE)
    except ForbiddenAddressError:
        return
    assert parsed.host
    assert 0 < port_of(parsed) < 2**16


@pytest.mark.parametrize(
    "port", ["22", "25", "0", "1023", "6000", "6667", "99999", "-1", "+80", "٣", "", "a", "080000"]
)
def test_a_port_that_is_no_web_servers_is_refused(port: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="port"):
        parse_url(f"http://1.1.1.1:{port}/", NONE)


@pytest.mark.parametrize("port", [80, 443, 1024, 8000, 8443, 65535])
def test_a_port_that_may_be_is_not(port: int) -> None:
    assert port_of(parse_url(f"http://1.1.1.1:{port}/", NONE)) == port


def test_a_host_and_a_port_that_the_operator_has_named_may_be_asked() -> None:
    assert port_of(checked_url("http://127.0.0.1:8000/x", LOOPBACK)) == 8000
    assert port_of(checked_url("http://127.0.0.1:9/x", Allowance(["127.0.0.1"], [9]))) == 9
    for url in ("http://127.0.0.2:8000/x", "http://127.0.0.1:9/x"):
        with pytest.raises(ForbiddenAddressError):
            checked_url(url, LOOPBACK)
    assert checked_url("http://LOCALHOST:8000/", Allowance(["localhost"])).port == 8000


@pytest.mark.parametrize("url", ["http://localhost/", "https://localhost:8000/"])
def test_a_name_that_leads_to_this_machine_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="not a public one"):
        checked_url(url, NONE)


def test_a_name_that_cannot_be_looked_up_just_now_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only part that cannot be had for real here: a name server's answers."""

    def unavailable(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", unavailable)
    url = checked_url("https://example.org/hook", NONE)
    with pytest.raises(UnknownAddressError):
        begin_look_up(url).result(10)


@pytest.fixture
def silent_name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that does not answer before the test has ended."""
    ended = threading.Event()

    def silent(*_: object, **__: object) -> None:
        ended.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "timed out")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr("service.webhooks.lookup._SUBMISSION_SECONDS", 0.01)
    yield
    ended.set()
    for thread in threading.enumerate():
        if thread.name == "look-up":
            thread.join()


@pytest.mark.usefixtures("silent_name_server")
def test_a_silent_name_server_holds_up_no_request_and_takes_few_threads() -> None:
    for _ in range(40):
        assert checked_url("https://example.org/hook", NONE).host == "example.org"
    assert sum(thread.name == "look-up" for thread in threading.enumerate()) <= 16


def test_a_name_with_one_address_that_is_not_public_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(2, 1, 6, "", (address, 80)) for address in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(ForbiddenAddressError):
        checked_url("http://example.org/", NONE)
