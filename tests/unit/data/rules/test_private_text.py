"""Secrets and personal data: what is found, what is left alone, and that nothing of it is shown."""

import time

import pytest

from trainer.data.rules.private_text import find_private, may_hold_private

# Put together here, so that no scanner of repositories takes this file for a leak.
SECRETS = {
    "OpenAI": ("s" + "k-proj-" + "Ab3" * 16, "an API key"),
    "older OpenAI": ("s" + "k-" + "aB1" * 16, "an API key"),
    "Azure storage": ("Account" + "Key=" + "a1B+" * 21 + "Zz==", "an Azure storage key"),
    "Azure AI": ("a1B2" * 13 + "JQQ" + "J99" + "c3D4" * 6 + "ab", "an Azure AI key"),
    "Azure client secret": ("abc" + "8Q" + "~" + "x1_Y" * 8 + "zz", "an Azure client secret"),
    "Azure OpenAI": ('"api_' + 'key": "' + "0123456789abcdef" * 2 + '"', "an API key"),
    "key in capitals": ("API_" + "KEY=" + "0123456789abcdef" * 2, "an API key"),
    "AWS": ("AK" + "IA" + "ABCD1234EFGH5678", "an AWS access key"),
    "Hugging Face": ("h" + "f_" + "aBcDeF" * 6, "a Hugging Face token"),
    "GitHub": ("gh" + "p_" + "a1B2c3" * 6, "a GitHub token"),
    "GitHub, fine-grained": ("github" + "_pat_" + "a1B2c3" * 10, "a GitHub token"),
    "private key": ("-----BEGIN RSA " + "PRIVATE KEY-----", "a private key"),
    "private key without algorithm": ("-----BEGIN " + "PRIVATE KEY-----", "a private key"),
    "JWT": ("ey" + "JhbGciOiJIUzI1NiJ9." + "ey" + "JzdWIiOiIxMjM0In0." + "abcdefghij_-123", "a JSON web token"),
}
SECRETS |= {
    "GitLab": ("gl" + "pat-" + "a1B2c3D4e5" * 2, "a GitLab token"),
    "Slack": ("xo" + "xb-" + "12345678901-aBcDeFgHiJkL", "a Slack token"),
    "Google": ("AI" + "za" + "Sy0aB1c" * 5, "a Google API key"),
    "Stripe": ("sk" + "_live_" + "a1B2c3D4" * 3, "a Stripe key"),
}
# The value is found, and what names it is not.
NAMED_SECRETS = {
    "in an address": (
        "postgres://shop:",
        "x7Kq2" + "Rv9tLm4",
        "@db.contoso-bikes.com/main",
        "a password in an address",
    ),
    "password": ('"password": "', "x7Kq2Rv9" + "tLm4Zp1W", '"', "a secret"),
    "token": ("TOKEN=", "b4f7a09c3e" + "d1582f6ab7", "", "a secret"),
    "secret": ("client secret: ", "Qz8.aX~3kP" + "0vR-7mT_wY", "", "a secret"),
}
PERSONAL = {
    "e-mail": ("maria.keller+x@contoso-bikes.co.uk", "an e-mail address"),
    "US phone": ("(425) 882-8080", "a phone number"),
    "US phone with dashes": ("425-882-8080", "a phone number"),
    "German phone": ("+49 89 31760", "a phone number"),
    "phone without spaces": ("+442079460958", "a phone number"),
    "card": ("4111 1111 1111 1111", "a payment card number"),
    "card without spaces": ("5500005555555559", "a payment card number"),
    "Amex": ("378282246310005", "a payment card number"),
    "IBAN": ("DE89 3704 0044 0532 0130 00", "an IBAN"),
    "IBAN without spaces": ("GB29NWBK60161331926819", "an IBAN"),
    "SSN": ("123-45-6789", "a US social security number"),
}
HARMLESS = [
    "https://user:password@host.com and amqp://guest:guestguest@localhost hold no secret",
    "password: correct-horse-battery-staple, token = your_access_token_goes_here",
    "the secret: aaaaaaaaaaaaaaaaaaaaaaaa1, the token: 11111111111111111111",
    "max_tokens = 4096, tokens: 123456789, secret_santa=true",
    "Natalia sold 48/2 = <<48/2=24>>24 clips. #### 72!!!",
    "1,000,000,000 people, 3.14159265358979, 2026-10-11 12:30:45.123456",
    "task-based risk-assessment-of-the-new-approaches and disk-encryption-settings-for-2024",
    "sk-short sk-all-lower-case-words-without-any-digit",
    "mail me at jane@example.com, bob@corp.example, root@localhost or git@github.com",
    "call 555-0123 or (425) 555-0123",
    "4111 1111 1111 1112 has a wrong check digit, and so has DE89 3704 0044 0532 0130 01",
    "000-12-3456 and 123-00-4567 and 900-12-3456 were never given out",
    "version 10.12.2024.1 at 192.168.100.200, ISBN 978-3-16-148410-0",
    "order 2024-0001-7734-1199, part 12-345-678, tracking 1Z999AA10123456784",
    "AK" + "IAIOSFODNN7EXAMPLE is the key of the documentation",
    "123456789012345678901234567890",
    "a @ b, @decorator, user@host, 5@7",
    "0123456789abcdef0123456789abcdef is a checksum",
    "timestamps 1700000000 and 1700000000000",
]


@pytest.mark.parametrize(("before", "value", "after", "kind"), NAMED_SECRETS.values(), ids=NAMED_SECRETS)
def test_a_value_as_random_as_a_key_is_found_where_its_name_says_secret(before, value, after, kind):
    text = f"Use {before}{value}{after} here"
    assert may_hold_private(text)
    assert [(one.code, one.kind, one.value) for one in find_private(text)] == [("SECRET", kind, value)]


def test_a_key_beside_the_word_token_is_found_once():
    key = "gh" + "p_" + "a1B2c3" * 6
    assert [one.kind for one in find_private(f"token={key}")] == ["a GitHub token"]


@pytest.mark.parametrize(("text", "kind"), SECRETS.values(), ids=SECRETS)
def test_secret_is_found_and_not_shown(text, kind):
    [private] = find_private(f"Use this: {text} and nothing else")
    assert (private.code, private.kind) == ("SECRET", kind)
    assert private.shown == f"'{private.value[:4]}…'"


@pytest.mark.parametrize(("text", "kind"), PERSONAL.values(), ids=PERSONAL)
def test_personal_data_is_found_and_not_shown(text, kind):
    [private] = find_private(f"Write down {text}, please.")
    assert (private.code, private.kind, private.value) == ("PERSONAL_DATA", kind, text)
    assert len(private.shown) == 7


@pytest.mark.parametrize(("text", "kind"), [*SECRETS.values(), *PERSONAL.values()], ids=[*SECRETS, *PERSONAL])
def test_the_quick_look_misses_nothing(text, kind):
    assert may_hold_private(text)
    assert may_hold_private(f"before\n{text}\nafter")


def test_the_quick_look_is_quick_at_prose():
    assert not may_hold_private(
        "Wobbly wheels go into a truing stand: a mechanic straightens them in 20 minutes, 2024."
    )


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_left_alone(text):
    assert list(find_private(text)) == []


@pytest.mark.parametrize(
    "piece", ["sk-", "sk-a1", "eyJ", "eyJaaaaaaaaaa.", "a@", "a.", "1 ", "1-", "+1", "4111 ", "DE89 ", "key="]
)
def test_long_texts_take_linear_time(piece):
    start = time.process_time()
    list(find_private("@ JQQJ99 8Q~ AccountKey= " + piece * (400_000 // len(piece))))
    assert time.process_time() - start < 10
