"""CONNECT and CONNACK, the keep alive, and the end of a connection by PINGREQ, DISCONNECT and AUTH."""
import time

from harness import check, proves, same
from mqtt import (AUTH, CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBREC, SUBACK, Closed, Will, ack, auth,
                  binary, connect, disconnect, fail, packet, prop, publish, string, subscribe, varint)

ALL = (3, 4, 5)


@proves("3.1.0-1 3.2.0-1", "3.1.0-1 3.2.0-1 3.14.0-1", ALL)
def first_packet_must_be_connect(t):
    for raw in (packet(PINGREQ, 0, b""), publish(t.v, t.topic(), b"x"), disconnect(t.v),
                subscribe(t.v, 1, [(t.topic(), 0)]), packet(CONNACK, 0, b"\0\0")):
        c = t.open()
        c.send(raw)
        c.expect_closed()


@proves("3.1.0-2", "3.1.0-2 3.2.0-2 4.13.1-1", ALL)
def second_connect_is_a_protocol_error(t):
    c = t.client()
    c.send(connect(t.v, c.id))
    c.expect_error(0x82)


@proves("3.1.4-4 3.2.0-1", "3.1.4-5 3.2.0-1 3.2.2-1 3.2.2-8", ALL)
def accepted_connect_gets_connack_first(t):
    first = t.session()
    topic = t.topic()
    first.subscribe((topic, 1))
    first.disconnect()
    t.client().publish(topic, "queued", qos=1)
    again = t.session(first.id)
    same("CONNACK code", again.connack.reason, 0)
    again.message(topic, "queued")


@proves("3.1.2-1", "3.1.2-1", ALL)
def wrong_protocol_name_is_refused(t):
    for name in ("MQTX", "mqtt", "MQTTT", "", "MQIsdp " if t.v == 3 else "MQIsdpx", b"MQ\xff\xfe"):
        c = t.open(4)
        c.send(connect(t.v, t.id(), name=name))
        for p in c.drain():
            check(p.kind == CONNACK and p.reason in (0x01, 0x84), "protocol name %r got %r", name, p)


@proves("3.1.2-2 3.2.2-5", "3.1.2-2 3.2.2-7 4.13.2-1", (4, 5))
def unknown_protocol_level_gets_connack_and_close(t):
    for name, level in (("MQTT", 6), ("MQTT", 2), ("MQTT", 0), ("MQTT", 0x45)):
        c = t.open(4)  # 0x01 in the form of 3.1.1, or 0x84 in that of 5.0
        c.send(connect(t.v, t.id(), name=name, level=level))
        p = c.expect(CONNACK, reason={0x01, 0x84})
        check(p.raw in (b"\x20\x02\0\x01", b"\x20\x03\0\x84\0"), "level %d got %r", level, p)
        c.expect_closed()


@proves("3.1.2-3 3.1.4-1", "3.1.2-3 3.1.4-1", (4, 5))
def connect_reserved_flag_must_be_zero(t):
    t.refused(connect(t.v, t.id(), flags=0x03), 0x81, 0x82)


@proves("2.2.2-1 2.2.2-2 3.1.4-1", "2.1.3-1 3.1.4-1")
def connect_fixed_header_flags_must_be_zero(t):
    for flags in (1, 2, 4, 8, 15):
        t.refused(connect(t.v, t.id(), fixed_flags=flags), 0x81)


@proves("3.1.2-14", "3.1.2-12", ALL)
def will_qos_3_is_malformed(t):
    will = (b"\0" if t.v == 5 else b"") + string(t.topic()) + binary(b"w")
    t.refused(connect(t.v, t.id(), flags=0x02 | 0x04 | 0x18, payload=string(t.id()) + will), 0x81, 0x82)


@proves("3.1.2-11 3.1.2-13", "3.1.2-11")
def will_qos_without_will_flag_is_malformed(t):
    for qos in (1, 2):
        t.refused(connect(t.v, t.id(), flags=0x02 | qos << 3), 0x81, 0x82)


@proves("3.1.2-11 3.1.2-15", "3.1.2-13")
def will_retain_without_will_flag_is_malformed(t):
    t.refused(connect(t.v, t.id(), flags=0x22), 0x81, 0x82)


@proves("3.1.2-9", "3.1.2-9", ALL)
def will_flag_needs_its_payload_fields(t):
    t.refused(connect(t.v, t.id(), flags=0x06), 0x81, 0x82)
    head = string(t.id()) + (b"\0" if t.v == 5 else b"")
    t.refused(connect(t.v, t.id(), flags=0x06, payload=head + string(t.topic())), 0x81, 0x82)


@proves("3.1.2-11 3.1.2-18 3.1.2-20 3.1.3-1", "3.1.2-16 3.1.2-18 3.1.3-1")
def connect_may_not_have_fields_without_their_flag(t):
    t.refused(connect(t.v, "", flags=0x02, payload=string(t.id()) + string("u")), 0x81, 0x82)


@proves("3.1.2-19 3.1.2-21", "3.1.2-17 3.1.2-19")
def user_name_and_password_flags_need_their_fields(t):
    t.refused(connect(t.v, t.id(), flags=0x82), 0x81, 0x82)
    t.refused(connect(t.v, t.id(), flags=0xC2, payload=string(t.id()) + string("u")), 0x81, 0x82)


@proves(versions=(3,))
def user_name_flag_without_a_user_name_is_allowed_on_3_1(t):
    # MQTT 3.1 section 3.1: the Remaining Length takes precedence over these flags.
    for flags in (0x82, 0xC2):
        c = t.open()
        c.send(connect(3, t.id(), flags=flags))
        c.expect(CONNACK, reason=0)


@proves("3.1.2-22")
def password_without_user_name_is_malformed(t):
    t.refused(connect(t.v, t.id(), flags=0x42, payload=string(t.id()) + string("p")))


@proves(versions=(5,))
def password_without_user_name_is_allowed(t):
    t.client(password=b"secret\0\xff").quiet()


@proves("3.1.2-19 3.1.2-21 3.1.3-1 3.1.3-11", "3.1.2-17 3.1.2-19 3.1.3-1 3.1.3-12", ALL)
def all_payload_fields_in_order_are_read(t):
    topic = t.topic()
    s = t.client()
    s.subscribe(topic)
    c = t.client(username="J\u00f6rg \U0001f41f", password=b"\0\xff",
                 will=Will(topic, b"in order"))
    c.quiet()
    c.drop()
    s.message(topic, "in order")


@proves("3.1.3-3", "3.1.3-3", ALL)
def client_id_must_be_present(t):
    t.refused(connect(t.v, "", flags=0x02, payload=b""), 0x81, 0x82)
    t.refused(connect(t.v, "", flags=0x02, payload=b"\0"), 0x81, 0x82)


BAD_UTF8 = (b"\xff", b"a\xc3", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
            b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\x80", b"a\xe2\x82")


@proves("1.5.3-1 3.1.3-4", "1.5.4-1 3.1.3-4", ALL)
def client_id_must_be_utf8(t):
    for bad in BAD_UTF8:
        t.refused(connect(t.v, b"c" + bad), 0x81, 0x85)


@proves("1.5.3-2 3.1.3-4", "1.5.4-2 3.1.3-4", ALL)
def client_id_may_not_have_a_null(t):
    t.refused(connect(t.v, b"c\0d"), 0x81, 0x85)


@proves("1.5.3-1 3.1.3-11", "1.5.4-1 3.1.3-12")
def user_name_must_be_utf8(t):
    for bad in (b"\xff", b"\xed\xa0\x80", b"u\0"):
        t.refused(connect(t.v, t.id(), username=bad, password=b""), 0x81)


@proves("1.5.3-1 3.1.3-10", "1.5.4-1 3.1.3-11", ALL)
def will_topic_must_be_utf8(t):
    for bad in (b"w/\xff", b"w/\xed\xa0\x80", b"w/\0"):
        t.refused(connect(t.v, t.id(), will=Will(bad)), 0x81)


@proves("4.7.1-1 4.7.3-1", "4.7.0-1 4.7.3-1", ALL)
def will_topic_must_be_a_topic_name(t):
    for bad in ("", "w/#", "w/+/x"):
        t.refused(connect(t.v, t.id(), will=Will(bad)), 0x81, 0x82, 0x90)


@proves("3.1.3-5", "3.1.3-5", ALL)
def client_ids_of_1_to_23_alphanumeric_bytes_are_accepted(t):
    unique = t.id()
    t.client((unique + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")[:23]).quiet()
    t.client(("abcdefghijklmnopqrstuvwxyz"[:22 - len(unique)] + "Z" + unique)[-23:]).quiet()
    for single in "aZ9":  # one byte is too short to be the test's own: two runs may take it from each other
        t.client(single)


@proves("3.1.3-8 3.1.3-9 3.2.2-4 3.2.2-5")
def empty_client_id_without_clean_session_gets_2(t):
    c = t.open()
    c.send(connect(4, "", clean=False))
    c.expect(CONNACK, reason=2, session_present=False)
    c.expect_closed()


@proves(versions=(3,))
def empty_client_id_on_3_1_gets_2(t):
    c = t.open()
    c.send(connect(3, ""))
    c.expect(CONNACK, reason=2)
    c.expect_closed()


@proves("3.1.3-6")
def empty_client_id_with_clean_session_is_accepted(t):
    a, b = t.client(""), t.client("")
    topic = t.topic()
    a.subscribe(topic)
    b.publish(topic, "both live")
    a.message(topic, "both live")


@proves("", "3.1.3-6 3.1.3-7 3.2.2-16")
def empty_client_id_gets_a_unique_assigned_one(t):
    a, b = t.client(""), t.client("")
    one, two = (x.connack.get("assigned_client_id") for x in (a, b))
    check(one and two, "no Assigned Client Identifier: %r %r", one, two)
    check(one != two, "the same Assigned Client Identifier twice: %r", one)
    a.quiet()


@proves("", "3.1.3-7 3.1.3-6")
def assigned_client_id_names_the_session(t):
    first = t.session("")
    name = first.connack.get("assigned_client_id")
    check(name, "no Assigned Client Identifier with Clean Start 0")
    first.disconnect()
    again = t.session(name)
    check(again.connack.session_present, "no session under the assigned identifier %r", name)
    same("a second assigned identifier", again.connack.get("assigned_client_id"), None)


@proves("3.1.3-9", "3.1.3-8")
def very_long_client_id_is_accepted_or_refused_in_order(t):
    c = t.open()
    c.send(connect(t.v, t.id() + "x" * 60000))
    p = c.expect(CONNACK, reason={0, 2 if t.v == 4 else 0x85})
    if p.reason:
        c.expect_closed()
    else:
        c.quiet()


@proves("3.1.4-5", "3.1.4-6")
def nothing_after_a_refused_connect_is_processed(t):
    topic = t.topic()
    s = t.client()
    s.subscribe(topic)
    bad = connect(4, "", clean=False) if t.v == 4 else connect(5, t.id(), properties={"auth_method": "none"})
    c = t.open()
    c.send(bad, publish(t.v, topic, b"must not arrive"))
    got = c.drain()
    same("packets", [p.kind for p in got], [CONNACK])
    t.nothing(t.client(), s)


@proves("", "3.2.2-6 3.2.2-7 4.12.0-1 4.12.0-6 4.13.2-1")
def unknown_authentication_method_gets_0x8c(t):
    c = t.open()
    c.send(connect(5, t.id(), properties={"auth_method": "X-UNKNOWN", "auth_data": b"\0\1"}))
    c.expect(CONNACK, reason=0x8C, session_present=False)
    c.expect_closed()


# mosquitto 2.0.11: accepts it. mosquitto is wrong (3.1.2.11.10).
@proves("", "3.1.4-1 4.13.1-1")
def authentication_data_without_method_is_a_protocol_error(t):
    t.refused(connect(5, t.id(), properties={"auth_data": b"x"}), 0x82)


@proves("", "4.12.0-7 4.13.1-1")
def auth_without_a_method_is_a_protocol_error(t):
    for raw in (auth(0x18, {"auth_method": "PLAIN"}), auth(0x19, {"auth_method": "PLAIN"}),
                packet(AUTH, 0, b"")):
        c = t.client()
        c.send(raw)
        c.expect_error(0x82, 0x8C)


@proves("", "3.15.1-1")
def auth_reserved_flags_are_malformed(t):
    c = t.client()
    c.send(bytes([0xF1]) + auth(0x19, {"auth_method": "PLAIN"})[1:])
    c.expect_error(0x81, 0x82)


@proves("", "4.12.0-6 3.1.2-28")
def connack_has_no_unasked_properties(t):
    p = t.client().connack
    for name in ("auth_method", "auth_data", "response_info", "assigned_client_id", "server_reference"):
        same(name, p.get(name), None)
    p = t.client(properties={"request_response_info": 0}).connack
    same("response_info", p.get("response_info"), None)


@proves("", "3.2.2-9 3.2.2-10")
def any_requested_qos_is_accepted_in_subscribe(t):
    c = t.client()
    maximum = c.connack.get("maximum_qos")
    check(maximum in (None, 0, 1), "Maximum QoS %r", maximum)
    for qos in (0, 1, 2):
        c.subscribe((t.topic(), qos), codes=[qos if maximum is None else min(qos, maximum)])


@proves("", "3.1.4-1 4.13.1-1")
def invalid_connect_property_values_are_protocol_errors(t):
    for name, value in (("receive_maximum", 0), ("maximum_packet_size", 0), ("request_problem_info", 2),
                        ("request_response_info", 2)):
        t.refused(connect(5, t.id(), properties={name: value}), 0x81, 0x82)


@proves("", "3.1.4-1 4.13.1-1")
def repeated_connect_properties_are_protocol_errors(t):
    for name, value in (("session_expiry", 1), ("receive_maximum", 10), ("maximum_packet_size", 1000),
                        ("topic_alias_maximum", 3), ("request_response_info", 1),
                        ("request_problem_info", 1), ("auth_method", "a"), ("auth_data", b"a")):
        pairs = [(name, value), (name, value)]
        if name == "auth_data":
            pairs.append(("auth_method", "a"))
        t.refused(connect(5, t.id(), properties=pairs), 0x81, 0x82)


@proves("", "3.1.4-1 4.13.1-1")
def properties_of_other_packets_in_connect_are_malformed(t):
    for item in (prop("topic_alias", 1), prop("will_delay", 1), prop("assigned_client_id", "x"),
                 prop("subscription_id", 1), prop("reason_string", "x"), b"\x7f\x01", b"\x00", b"\x04\x00",
                 b"\xff\xff\xff\x7f"):
        t.refused(connect(5, t.id(), properties=item), 0x81, 0x82)


@proves("", "3.1.4-1")
def properties_of_other_packets_in_a_will_are_malformed(t):
    for item in (prop("topic_alias", 1), prop("session_expiry", 1), prop("subscription_id", 1),
                 prop("will_delay", 1) * 2, prop("content_type", "a") * 2):
        t.refused(connect(5, t.id(), will=Will(t.topic(), properties=item)), 0x81, 0x82)


@proves("", "3.1.4-1 4.13.1-1")
def connect_property_lengths_are_checked(t):
    head = string("MQTT") + b"\x05\x02\0\x3c"
    for tail in (varint(200) + string(t.id()),           # more than the packet has
                 b"\xff\xff\xff\xff\x01" + string(t.id()),   # more than four bytes
                 b"\x03\x11\0\0" + string(t.id()),           # a property cut short
                 b"\x04\x26\0\x01a" + string(t.id()),        # half a pair
                 b"\x05\x15\0\x09ab" + string(t.id())):      # a string longer than the property list
        t.refused(packet(1, 0, head + tail), 0x81, 0x82)


@proves("", "1.5.7-1 1.5.4-1")
def connect_user_properties_must_be_utf8(t):
    for pair in ((b"\xff", b"v"), (b"k", b"\xed\xa0\x80"), (b"k\0", b"v"), (b"k", b"v\0")):
        t.refused(connect(5, t.id(), properties=[("user", pair)]), 0x81)


@proves(versions=(5,))
def connect_user_properties_may_repeat(t):
    t.client(properties=[("user", ("a", "1")), ("user", ("a", "1")), ("user", ("", ""))]).quiet()


@proves("", "2.2.2-1")
def connack_has_a_property_length(t):
    check(len(t.client().connack.raw) >= 5, "CONNACK without a property length")


@proves("3.1.4-1 3.2.2-6", "3.1.4-1")
def truncated_connect_is_refused(t):
    whole = connect(t.v, t.id(), username="user", password=b"pw", will=Will("w", b"w"))[2:]
    for cut in range(0, len(whole), 3):
        t.refused(packet(1, 0, whole[:cut]), 0x81, 0x82, 0x84)


@proves("", "4.2.0-1")
def connect_data_may_come_byte_by_byte(t):
    c = t.open()
    c.id = t.id()
    c.dribble(connect(5, c.id, username="u", password=b"p", properties={"session_expiry": 0}))
    c.expect(CONNACK, reason=0)
    c.dribble(subscribe(5, 7, [(t.topic(), 1)]))
    c.expect(SUBACK, pid=7)


@proves("3.1.4-4", "3.1.4-5", ALL)
def packets_may_follow_connect_without_waiting(t):
    topic = t.topic()
    c = t.open()
    c.send(connect(t.v, t.id()), subscribe(t.v, 1, [(topic, 1)]), publish(t.v, topic, b"early", 1, 2),
           packet(PINGREQ, 0, b""))
    c.expect(CONNACK, reason=0)
    c.expect(SUBACK, pid=1)
    kinds = [c.receive() for _ in range(3)]  # PUBLISH and PUBACK in any order, then PINGRESP
    check(any(p.kind == PUBACK and p.pid == 2 for p in kinds), "no PUBACK in %r", kinds)
    check(any(p.kind == 3 and p.payload == b"early" for p in kinds), "no PUBLISH in %r", kinds)
    check(any(p.kind == PINGRESP for p in kinds), "no PINGRESP in %r", kinds)


@proves("3.12.4-1", "3.12.4-1", ALL)
def pingreq_gets_pingresp(t):
    c = t.client()
    for _ in range(3):
        c.quiet()
    c.send(packet(PINGREQ, 0, b"") * 3)
    for _ in range(3):
        same("PINGRESP", c.expect(PINGRESP).raw, b"\xd0\0")


# mosquitto 2.0.11: looks for silent clients every 5 s only. mosquitto is wrong (3.1.2.10).
@proves("3.1.2-24", "3.1.2-22 3.2.2-22 3.14.2-1", ALL)
def silent_client_is_closed_after_one_and_a_half_keep_alives(t):
    started = time.monotonic()
    c = t.client(keepalive=1)
    limit = (c.connack.get("server_keep_alive") if t.v == 5 else None) or 1
    c.expect_error(0x8D, patience=limit * 1.5 + 3)
    took = time.monotonic() - started
    check(limit * 1.0 < took < limit * 1.5 + 2.0, "closed after %.1f s with a keep alive of %d s", took, limit)


@proves("3.1.2-24", "3.1.2-22", ALL)
def any_packet_counts_for_the_keep_alive(t):
    c = t.client(keepalive=1)
    for i in range(5):
        t.wait(0.6)
        if i % 2:
            c.quiet()
        else:
            c.publish(t.topic(), "alive", qos=1)


@proves(versions=ALL)
def keep_alive_0_is_never_closed(t):
    c = t.client(keepalive=0)
    t.wait(2.5)
    c.quiet()


@proves("3.14.4-3", "3.14.4-2", ALL)
def server_closes_after_disconnect(t):
    t.client().disconnect()


@proves("3.14.1-1 2.2.2-2", "3.14.1-1 2.1.3-1")
def disconnect_reserved_flags_are_malformed(t):
    topic = t.topic()
    s = t.client()
    s.subscribe(topic)
    c = t.client(will=Will(topic, b"not a proper end"))
    c.send(b"\xe1\0")
    c.expect_error(0x81, 0x82)
    s.message(topic, "not a proper end")


@proves("", "3.14.2-1 4.13.1-1")
def disconnect_with_an_undefined_reason_code_is_an_error(t):
    for reason in (0x01, 0x03, 0x05, 0x7F, 0xFF):
        c = t.client()
        c.send(disconnect(5, reason, {}))
        c.expect_error(0x81, 0x82)


@proves("", "4.13.1-1")
def disconnect_properties_are_checked(t):
    for raw in (packet(DISCONNECT, 0, b"\0\x05"), packet(DISCONNECT, 0, b"\0\x02\x23\0"),
                disconnect(5, 0, prop("session_expiry", 0) * 2),
                disconnect(5, 0, prop("topic_alias", 1)), packet(DISCONNECT, 0, b"\0\0\0")):
        c = t.client()
        c.send(raw)
        c.expect_error(0x81, 0x82)


@proves("4.8.0-1", "", ALL[:2])
def disconnect_with_a_payload_is_malformed(t):
    c = t.client()
    c.send(b"\xe0\x01\0")
    c.expect_closed()


@proves("3.14.4-2", "3.14.4-1", ALL)
def nothing_after_disconnect_is_processed(t):
    topic = t.topic()
    s, c = t.client(), t.client()
    s.subscribe(topic)
    c.send(disconnect(t.v), publish(t.v, topic, b"too late"))
    try:
        while True:
            p = c.receive()
            fail("an answer after DISCONNECT: %r", p)
    except Closed:
        pass
    t.nothing(t.client(), s)


@proves("3.1.4-2", "3.1.4-3 3.14.4-1 3.14.4-2", ALL)
def second_connection_takes_the_session_over(t):
    old = t.session()
    topic = t.topic()
    old.subscribe((topic, 1))
    new = t.session(old.id)
    if t.v > 3:
        check(new.connack.session_present, "the session was not taken over")
    old.expect_error(0x8E)
    t.client().publish(topic, "to the new one", qos=1)
    new.message(topic, "to the new one")


@proves("3.1.4-2", "3.1.4-3", ALL)
def takeover_with_a_clean_session(t):
    old = t.client()
    topic = t.topic()
    old.subscribe(topic)
    new = t.client(old.id)
    same("session present", new.connack.session_present, False)
    old.expect_error(0x8E)
    t.client().publish(topic, "nobody")
    new.quiet()


@proves(versions=(5,))
def takeover_across_protocol_versions(t):
    old = t.client(version=4)
    new = t.client(old.id, version=5)
    old.expect_closed()
    again = t.client(old.id, version=3)
    new.expect_error(0x8E)
    again.quiet()


@proves("", "3.1.2-29")
def request_problem_information_0_silences_reason_strings(t):
    c = t.client(properties={"request_problem_info": 0})
    topic = t.topic()
    c.send(ack(6, 4711))  # PUBREL of an unknown identifier
    got = [c.receive()]
    c.send(publish(5, topic, b"x", 1, 9), publish(5, topic, b"x", 2, 10))
    got += [c.receive(), c.receive()]
    got.append(c.unsubscribe(topic, codes=[0x11]))
    got.append(c.subscribe(topic, ("a/#/b", 1), codes=[0, 0x8F]))
    c.send(publish(5, "$SYS/mine", b"x", 1, 11))
    got.append(c.expect(PUBACK, pid=11, reason=0x87))
    for p in got:
        check(p.get("reason_string") is None and not p.all("user"), "problem information in %r", p)


@proves("", "3.2.2-19 3.2.2-20 3.4.2-2 3.4.2-3 3.5.2-2 3.5.2-3 3.7.2-2 3.7.2-3 3.9.2-1 3.9.2-2 3.11.2-1 "
            "3.11.2-2 3.14.2-3 3.14.2-4 3.1.2-24")
def reason_strings_never_exceed_the_maximum_packet_size(t):
    # The strict decoder fails every packet above the limit; each of these answers fits without extras.
    limit = 40
    c = t.client(properties={"maximum_packet_size": limit})
    topic = t.topic()
    c.publish(topic, "x", qos=1)
    c.publish(topic, "x", qos=2)
    c.send(ack(6, 4711))
    c.expect(7, pid=4711, reason={0, 0x92})
    c.subscribe(topic)
    c.unsubscribe(topic, t.topic(), codes=[0, 0x11])
    c.subscribe(("a/#/b", 1), codes=[0x8F])
    c.send(publish(5, "$SYS/mine", b"x", 1, 11))
    c.expect(PUBACK, pid=11, reason=0x87)
    c.send(publish(5, "a/#", b"x"))
    c.expect_error(0x81, 0x82, 0x90)


@proves(versions=(5,))
def refusals_say_why(t):
    c = t.client()
    said = [c.subscribe((t.topic(), 0), ("a/#/b", 1), codes=[0, 0x8F])]
    said.append(c.unsubscribe("a/#/b", codes=[0x8F]))
    for qos, kind in ((1, PUBACK), (2, PUBREC)):
        c.send(publish(5, "$SYS/mine", b"x", qos, 11))
        said.append(c.expect(kind, pid=11, reason=0x87))
    c.send(publish(5, "a/#", b"x"))
    said += [p for p in c.drain() if p.kind == DISCONNECT]
    refused = t.open(5)
    refused.send(connect(5, t.id(), properties={"auth_method": "PLAIN"}))
    said += refused.drain()
    same("answers", len(said), 6)
    for p in said:
        check(p.get("reason_string"), "no reason string in %r", p)
    for p in (t.client().connack, t.client().subscribe(t.topic())):
        same("reason string of a success", p.get("reason_string"), None)
