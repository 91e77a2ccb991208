"""Packets that no client may send: types, flags, lengths."""
from harness import check, proves
from mqtt import (AUTH, CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBREC, PUBREL, SUBACK, UNSUBACK,
                  Closed, ack, packet, publish, u16)

ALL = (3, 4, 5)


def malformed(t, raw, *codes):
    c = t.client()
    c.send(raw)
    c.expect_error(*(codes or (0x81, 0x82)))


@proves("2.2.2-2 4.8.0-1", "2.1.3-1 4.13.1-1", ALL)
def packet_type_0_is_malformed(t):
    malformed(t, b"\0\0")
    malformed(t, b"\x0f\0")


@proves("4.8.0-1", "", (3, 4))
def packet_type_15_is_malformed_before_5(t):
    malformed(t, b"\xf0\0")
    malformed(t, b"\xf0\x02\x18\0")


# mosquitto 2.0.11: ignores PINGRESP and SUBACK, since its bridge shares the code. mosquitto is wrong (2.1.2).
@proves("4.8.0-1", "4.13.1-1", ALL)
def packets_that_only_servers_send_are_errors(t):
    for raw in (packet(CONNACK, 0, b"\0\0" + (b"\0" if t.v == 5 else b"")),
                packet(SUBACK, 0, u16(1) + (b"\0" if t.v == 5 else b"") + b"\0"),
                packet(UNSUBACK, 0, u16(1) + (b"\0\0" if t.v == 5 else b"")), packet(PINGRESP, 0, b"")):
        malformed(t, raw)


# mosquitto 2.0.11: does not look at them. mosquitto is wrong (2.1.3; 3.1.1: 2.2.2).
@proves("2.2.2-1 2.2.2-2", "2.1.3-1 4.13.1-1")
def acknowledgement_and_ping_flags_must_be_zero(t):
    for kind in (PUBACK, PUBREC, PUBCOMP):
        for flags in (1, 2, 8):
            malformed(t, packet(kind, flags, u16(1)))
    for flags in (1, 2, 8):
        malformed(t, packet(PINGREQ, flags, b""))


@proves("3.6.1-1 2.2.2-2", "3.6.1-1 2.1.3-1")
def pubrel_flags_must_be_0010(t):
    for flags in (0, 1, 3, 6, 10, 15):
        c = t.client()
        c.send(publish(t.v, t.topic(), b"x", 2, 1))
        c.expect(PUBREC, pid=1)
        c.send(packet(PUBREL, flags, u16(1)))
        c.expect_error(0x81, 0x82)


@proves("4.8.0-1", "4.13.1-1", ALL)
def remaining_length_of_five_bytes_is_malformed(t):
    malformed(t, b"\x30\xff\xff\xff\xff\x01")
    malformed(t, b"\x30\x80\x80\x80\x80\x00", 0x81, 0x82, 0x95)


# mosquitto 2.0.11: accepts it. The standard binds the sender (1.5.5); a receiver may take it for malformed.
@proves("", "1.5.5-1")
def property_length_longer_than_needed_is_malformed_or_harmless(t):
    c = t.client()
    body = b"\0\x01t" + b"\x80\x00" + b"x"
    c.send(packet(3, 0, body), packet(PINGREQ, 0, b""))
    try:
        p = c.receive()
    except Closed:
        return
    check(p.kind == PINGRESP or (p.kind == DISCONNECT and p.reason in (0x81, 0x82)), "got %r", p)


@proves("4.8.0-1", "4.13.1-1", ALL)
def truncated_acknowledgements_are_malformed(t):
    for kind, flags in ((PUBACK, 0), (PUBREC, 0), (PUBREL, 2), (PUBCOMP, 0)):
        for body in (b"", b"\0"):
            malformed(t, packet(kind, flags, body))


# mosquitto 2.0.11: ignores the rest of the packet. mosquitto is wrong (3.4.1).
@proves("4.8.0-1", "", (4,))
def acknowledgements_of_more_than_two_bytes_are_malformed(t):
    for kind, flags in ((PUBACK, 0), (PUBREC, 0), (PUBREL, 2), (PUBCOMP, 0)):
        malformed(t, packet(kind, flags, u16(1) + b"\0"))


# mosquitto 2.0.11: checks only some of them. mosquitto is wrong (3.4.2.1).
@proves("", "4.13.1-1 3.4.2-1 3.5.2-1 3.6.2-1 3.7.2-1")
def undefined_reason_codes_in_acknowledgements_are_errors(t):
    for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        for reason in (0x01, 0x7F, 0xFF, 0x8D):
            malformed(t, ack(kind, 1, reason))


# mosquitto 2.0.11: accepts some of them. mosquitto is wrong (2.2.2).
@proves("", "4.13.1-1")
def acknowledgement_properties_are_checked(t):
    for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        flags = 2 if kind == PUBREL else 0
        for tail in (b"\x05", b"\x02\x23\0", b"\x06\x1f\0\0\x1f\0\0", b"\x04\x1f\0\x01\xff", b"\0\0", b"\x80"):
            malformed(t, packet(kind, flags, u16(1) + b"\0" + tail))


# mosquitto 2.0.11: answers it. mosquitto is wrong (3.12.1).
@proves("4.8.0-1", "4.13.1-1")
def pingreq_with_a_payload_is_malformed(t):
    malformed(t, packet(PINGREQ, 0, b"\0"))


@proves("4.8.0-1 3.3.2-1", "4.13.1-1 3.3.2-1", ALL)
def truncated_publishes_are_malformed(t):
    for raw in (packet(3, 0, b""), packet(3, 0, b"\0"), packet(3, 0, b"\0\x05abc"), packet(3, 2, b"\0\x01t"),
                packet(3, 2, b"\0\x01t\0"), packet(3, 4, b"\0\x01t")):
        malformed(t, raw)


@proves("", "4.13.1-1")
def publish_property_lengths_are_checked(t):
    for tail in (b"", b"\x05\x01", b"\xff\xff\xff\xff\x7f", b"\x80", b"\x01\x01", b"\x02\x26\0",
                 b"\x07\x26\0\x01a\0\x05b", b"\x03\x02\0\0", b"\x04\x03\0\x09a"):
        malformed(t, packet(3, 0, b"\0\x01t" + tail))


@proves("", "3.15.1-1 3.15.2-1 4.13.1-1")
def malformed_auth_is_an_error(t):
    for raw in (packet(AUTH, 1, b""), packet(AUTH, 0, b"\x01"), packet(AUTH, 0, b"\x18\x09"),
                packet(AUTH, 0, b"\x18\x02\x23\0")):
        malformed(t, raw, 0x81, 0x82, 0x8C)


@proves("4.8.0-1", "4.13.1-1", ALL)
def one_bad_client_disturbs_nobody(t):
    topic = t.topic()
    s, p = t.client(), t.client()
    s.subscribe((topic, 1))
    for raw in (b"\0\0", b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f" + b"\0" * 64, bytes(64)):
        c = t.open()
        c.send(raw)
        bad = t.client()
        bad.send(raw)
        p.publish(topic, "still here", qos=1)
        s.message(topic, "still here")


@proves("2.2.2-2", "4.13.2-1 2.1.3-1", ALL)
def what_came_before_the_error_is_processed(t):
    topic = t.topic()
    s, c = t.client(), t.client()
    s.subscribe((topic, 1))
    c.send(publish(t.v, topic, b"before"), b"\0\0", publish(t.v, topic, b"after"))
    c.expect_error(0x81, 0x82)
    s.message(topic, "before")
    t.nothing(t.client(), s)
