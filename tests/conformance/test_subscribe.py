"""SUBSCRIBE, UNSUBSCRIBE, topic filters, subscription options and identifiers."""
import mqtt
from harness import check, proves, same
from mqtt import (DISCONNECT, PUBLISH, SUBACK, UNSUBACK, Closed, options, packet, prop, string, subscribe, u16,
                  unsubscribe)

ALL = (3, 4, 5)


@proves("3.8.4-1 3.8.4-2 3.8.4-4 3.8.4-5 3.9.3-1 3.9.3-2 2.3.1-7",
        "3.8.4-1 3.8.4-2 3.8.4-5 3.8.4-6 3.8.4-7 3.9.3-1 3.9.3-2 2.2.1-6", ALL)
def suback_has_a_code_for_each_filter_in_order(t):
    c = t.client()
    wanted = [2, 0, 1, 1, 2, 0, 0, 2]
    c.send(subscribe(t.v, 65535, [(t.topic(), q) for q in wanted]))
    same("codes", c.expect(SUBACK, pid=65535).reasons, wanted)
    for q in (0, 1, 2):
        c.subscribe((t.topic(), q), codes=[q])


@proves("3.8.4-4 3.10.4-6", "3.8.4-5 3.10.4-6", ALL)
def several_filters_work_like_several_packets(t):
    topics = [t.topic() for _ in range(5)]
    c, p = t.client(), t.client()
    c.subscribe(*[(x, 1) for x in topics])
    for topic in topics:
        p.publish(topic, topic, qos=1)
        c.message(topic)
    c.unsubscribe(*topics[1:4])
    for topic in topics:
        p.publish(topic, topic, qos=1)
    c.message(topics[0])
    c.message(topics[4])
    t.nothing(p, c)


@proves("3.8.4-3", "3.8.4-3 3.8.4-4", ALL)
def subscribing_again_replaces_the_subscription(t):
    topic = t.topic()
    c, p = t.client(), t.client()
    for qos in (2, 0, 1):
        c.subscribe((topic, qos))
        p.publish(topic, "x", qos=2)
        c.message(topic, "x", qos=qos)
        t.nothing(p, c)
    c.unsubscribe(topic)
    p.publish(topic, "x", qos=2)
    t.nothing(p, c)


@proves("3.8.4-3", "3.8.4-4", ALL)
def replacement_does_not_interrupt_the_flow(t):
    topic = t.topic()
    c, p = t.client(), t.client()
    c.subscribe((topic, 1))
    got = []
    for i in range(40):
        p.publish(topic, "%d" % i, qos=1)
        if i % 4 == 0:
            got += [x for x in c.subscribe((topic, 1)).before if x.kind == PUBLISH]
    for x in got:
        c.answer(x)
    got += c.messages(40 - len(got))
    same("messages", [x.payload for x in got], [b"%d" % i for i in range(40)])


@proves("2.3.1-1", "2.2.1-3 4.13.1-1", ALL)
def packet_identifier_0_in_subscribe_is_an_error(t):
    for raw in (subscribe(t.v, 0, [(t.topic(), 0)]), unsubscribe(t.v, 0, [t.topic()])):
        c = t.client()
        c.send(raw)
        c.expect_error(0x81, 0x82)


@proves("3.8.1-1 2.2.2-2", "3.8.1-1 2.1.3-1")
def subscribe_flags_must_be_0010(t):
    for flags in (0, 1, 3, 6, 10):
        c = t.client()
        c.send(bytes([0x80 | flags]) + subscribe(t.v, 1, [(t.topic(), 0)])[1:])
        c.expect_error(0x81)


@proves("3.10.1-1 2.2.2-2", "3.10.1-1 2.1.3-1")
def unsubscribe_flags_must_be_0010(t):
    for flags in (0, 1, 3, 6, 10):
        c = t.client()
        c.send(bytes([0xA0 | flags]) + unsubscribe(t.v, 1, [t.topic()])[1:])
        c.expect_error(0x81)


@proves("3.8.3-3", "3.8.3-2")
def subscribe_without_filters_is_an_error(t):
    c = t.client()
    c.send(subscribe(t.v, 1, []))
    c.expect_error(0x81, 0x82)


@proves("3.10.3-2", "3.10.3-2")
def unsubscribe_without_filters_is_an_error(t):
    c = t.client()
    c.send(unsubscribe(t.v, 1, []))
    c.expect_error(0x81, 0x82)


@proves("3.8.3-4", "3.8.3-5")
def reserved_subscription_bits_are_malformed(t):
    for value in ((0x04, 0x08, 0x10, 0x40, 0x80, 0xFC) if t.v == 4 else (0x40, 0x80, 0xC0)):
        c = t.client()
        c.send(subscribe(t.v, 1, [(t.topic(), value)]))
        c.expect_error(0x81, 0x82)


@proves("3.8.3-4", "3.8.3-5 4.13.1-1", ALL)
def requested_qos_3_is_malformed(t):
    c = t.client()
    c.send(subscribe(t.v, 1, [(t.topic(), 3)]))
    c.expect_error(0x81, 0x82)


@proves("1.5.3-1 1.5.3-2 3.8.3-1 3.10.3-1 4.7.3-2", "1.5.4-1 1.5.4-2 3.8.3-1 3.10.3-1 4.7.3-2")
def topic_filters_must_be_utf8(t):
    for bad in (b"a/\xff", b"\xed\xa0\x80", b"\xc0\x80", b"a\0b"):
        for raw in (subscribe(t.v, 1, [(bad, 0)]), unsubscribe(t.v, 1, [bad])):
            c = t.client()
            c.send(raw)
            c.expect_error(0x81, 0x82, 0x8F)


def refused_filter(t, bad, opts=0):
    """A filter that is not allowed: the connection ends, or (5.0: 0x8F, 3.1.1: 0x80) the filter alone is refused."""
    c = t.client()
    good = t.topic()
    c.send(subscribe(t.v, 1, [(good, 0), (bad, opts)]))
    try:
        p = c.receive()
    except Closed:
        check(t.v < 5 or mqtt.LENIENT, "no DISCONNECT before the end for the filter %r", bad)
        return
    if p.kind == SUBACK:
        same("codes for the filter %r" % bad, p.reasons, [0, 0x8F if t.v == 5 else 0x80])
        c.quiet()
        return
    check(p.kind == DISCONNECT and p.reason in (0x81, 0x82, 0x8F), "filter %r got %r", bad, p)
    c.expect_closed()


@proves("4.7.1-2 4.7.1-3", "4.7.1-1 4.7.1-2", ALL)
def invalid_wildcards_are_refused(t):
    for bad in ("a/#/b", "a#", "#a", "#/", "a/b#", "a+", "+a", "a/+b", "a/b+/c", "++", "a/##", "+#"):
        refused_filter(t, bad)


@proves("4.7.3-1", "4.7.3-1", ALL)
def empty_filter_is_refused(t):
    refused_filter(t, "")


# mosquitto 2.0.11: accepts "$share/" and others. mosquitto is wrong (4.8.2).
@proves("", "4.8.2-1 4.8.2-2")
def invalid_shared_filters_are_refused(t):
    for bad in ("$share/", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/#/a", "$share/g+/a",
                "$share/g#x/a", "$share/g/a/#/b"):
        refused_filter(t, bad)


MATCHES = {  # filter: names that match; names that do not
    "a/b": (["a/b"], ["a", "a/", "a/b/", "a/b/c", "A/b", "/a/b", "a//b"]),
    "#": (["a", "a/b", "/", "/a"], []),
    "a/#": (["a", "a/", "a/b", "a/b/c", "a//"], ["b", "ab", "/a", "A"]),
    "a/b/#": (["a/b", "a/b/c", "a/b//"], ["a", "a/bc"]),
    "+": (["a", "b"], ["a/", "/a", "/", "a/b"]),
    "+/+": (["/a", "a/", "/", "a/b"], ["a", "a/b/c"]),
    "/+": (["/a", "/"], ["a", "a/", "/a/b"]),
    "a/+": (["a/", "a/b"], ["a", "a/b/c"]),
    "a/+/c": (["a/b/c", "a//c"], ["a/c", "a/b/c/d", "a/b/d", "a/b/b/c"]),
    "+/b/#": (["a/b", "/b", "a/b/c/d"], ["b", "a/c/b"]),
    "+/+/#": (["a/b", "/", "a/b/c"], ["a"]),
    "a/+/+/#": (["a/b/c", "a///", "a/b/c/d"], ["a/b"]),
}


@proves("4.7.1-2 4.7.1-3 3.8.3-2 3.3.2-3", "4.7.0-1 4.7.1-1 4.7.1-2 3.3.2-3", ALL)
def filters_match_as_the_standard_says(t):
    names = sorted({n for yes, no in MATCHES.values() for n in yes + no})
    p = t.client()
    for pattern, (yes, no) in MATCHES.items():
        base = t.topic()                         # the pattern below a level that only this test uses
        s = t.client()
        s.subscribe(base + "/" + pattern)
        for name in names:
            p.publish(base + "/" + name, name)
        got = {x.payload.decode() for x in t.fence(p, s)[0]}
        for name in yes:
            check(name in got, "%r does not match %r", pattern, name)
        for name in no:
            check(name not in got, "%r matches %r", pattern, name)


@proves("4.7.2-1", "4.7.2-1", ALL)
def leading_wildcards_do_not_match_dollar_topics(t):
    level = t.topic().replace("/", "-")
    p, hidden, shown = t.client(), t.client(), t.client()
    hidden.subscribe("+/%s/x" % level, "+/%s/#" % level)
    shown.subscribe("$test/%s/#" % level, "$test/+/x")
    p.publish("$test/%s/x" % level, "dollar")
    p.publish("test/%s/x" % level, "plain")
    got = t.fence(p, hidden)[0]
    same("hidden", {x.payload for x in got}, {b"plain"})
    got = [x for x in t.fence(p, shown)[0] if level in x.topic]
    check(all(x.payload == b"dollar" for x in got), "got %r", got)


@proves("3.10.4-4 3.10.4-5 2.3.1-7", "3.10.4-4 3.10.4-5 3.11.3-1 3.11.3-2 2.2.1-6", ALL)
def unsuback_answers_every_unsubscribe(t):
    c = t.client()
    a, b = t.topic(), t.topic()
    c.subscribe(a, b)
    c.send(unsubscribe(t.v, 65535, [a, t.topic(), b]))
    p = c.expect(UNSUBACK, pid=65535)
    if t.v == 5:
        same("codes", p.reasons, [0, 0x11, 0])
    else:
        same("UNSUBACK", p.raw, b"\xb0\x02\xff\xff")
    c.unsubscribe(a, codes=[0x11])


@proves("3.10.4-1 3.10.4-2", "3.10.4-1 3.10.4-2", ALL)
def unsubscribe_compares_filters_byte_by_byte(t):
    base = t.topic()
    c, p = t.client(), t.client()
    c.subscribe((base + "/+", 1))
    for other in ("/a", "/#", "/", "/+/", ""):
        c.unsubscribe(base + other, codes=[0x11])
    c.unsubscribe((base + "/+").upper(), codes=[0x11])
    p.publish(base + "/a", "still", qos=1)
    c.message(base + "/a", "still")
    c.unsubscribe(base + "/+")
    p.publish(base + "/a", "no more", qos=1)
    t.nothing(p, c)


@proves("3.10.4-3", "3.10.4-3", ALL)
def unsubscribe_lets_deliveries_in_flight_finish(t):
    topic = t.topic()
    c, p = t.session(), t.client()
    c.subscribe((topic, 2))
    p.publish(topic, "one", qos=1)
    p.publish(topic, "two", qos=2)
    one, two = c.expect(PUBLISH, payload=b"one"), c.expect(PUBLISH, payload=b"two")
    c.unsubscribe(topic)
    c.drop()
    c = t.session(c.id)
    again = c.messages(2)
    same("deliveries", [(x.pid, x.payload, x.dup) for x in again],
         [(one.pid, b"one", True), (two.pid, b"two", True)])
    p.publish(topic, "no more", qos=1)
    t.nothing(p, c)


@proves(versions=ALL)
def unsubscribe_of_one_overlapping_filter_keeps_the_other(t):
    base = t.topic()
    c, p = t.client(), t.client()
    c.subscribe((base + "/#", 1), (base + "/a", 1))
    c.unsubscribe(base + "/#")
    p.publish(base + "/a", "x", qos=1)
    c.message(base + "/a", "x")
    p.publish(base + "/b", "x", qos=1)
    t.nothing(p, c)


@proves("", "3.8.3-3")
def no_local(t):
    topic, other = t.topic(), t.topic()
    c, p = t.session(), t.client()
    c.subscribe((topic, options(1, no_local=True)), (other, 1))
    c.publish(topic, "own", qos=0)
    c.publish(topic, "own", qos=1)
    p.publish(topic, "foreign", qos=1)
    c.message(topic, "foreign")
    c.publish(other, "own", qos=0)
    c.message(other, "own")
    c.disconnect()
    c = t.session(c.id)  # the client identifier counts, not the connection
    c.publish(topic, "own", qos=1)
    t.nothing(c, c)


# mosquitto 2.0.11: accepts it. mosquitto is wrong (3.8.3.1).
@proves("", "3.8.3-4 4.13.1-1")
def no_local_on_a_shared_subscription_is_a_protocol_error(t):
    c = t.client()
    c.send(subscribe(5, 1, [("$share/g/" + t.topic(), options(0, no_local=True))]))
    c.expect_error(0x82)


@proves("", "3.3.4-3 3.3.4-4 3.3.4-5")
def subscription_identifiers_of_all_matching_subscriptions(t):
    base = t.topic()
    c, p = t.client(), t.client()
    c.subscribe((base + "/#", 1), properties={"subscription_id": 1})
    c.subscribe((base + "/a", 2), properties={"subscription_id": 300})
    c.subscribe((base + "/+", 0))
    c.subscribe((base + "/b", 1), properties={"subscription_id": 268435455})
    end = t.topic()
    c.subscribe(end)
    p.publish(base + "/a", "x", qos=1)
    p.publish(end, "end")
    got = c.messages_until(lambda m: any(x.payload == b"end" for x in m))
    ids = sorted(i for x in got if x.payload == b"x" for i in x.all("subscription_id"))
    same("identifiers for /a", ids, [1, 300])
    same("identifiers for end", got[-1].all("subscription_id"), [])
    p.publish(base + "/b/c", "x", qos=1)
    same("identifiers for /b/c", c.message().all("subscription_id"), [1])
    p.publish(base + "/b", "x", qos=1)
    p.publish(end, "end")
    got = c.messages_until(lambda m: any(x.payload == b"end" for x in m))
    ids = sorted(i for x in got for i in x.all("subscription_id"))
    same("identifiers for /b", ids, [1, 268435455])


@proves("", "3.8.4-3 3.3.4-3")
def subscribing_again_replaces_the_subscription_identifier(t):
    topic = t.topic()
    c, p = t.client(), t.client()
    for value in (1, 2, None):
        c.subscribe((topic, 1), properties={"subscription_id": value} if value else {})
        p.publish(topic, "x", qos=1)
        same("identifiers", c.message(topic).all("subscription_id"), [value] if value else [])


@proves("", "4.13.1-1")
def invalid_subscription_identifiers_are_errors(t):
    for item in (prop("subscription_id", 0), prop("subscription_id", 1) + prop("subscription_id", 2),
                 b"\x0b\x80\x80\x80\x80\x01"):
        c = t.client()
        c.send(subscribe(5, 1, [(t.topic(), 0)], item))
        c.expect_error(0x81, 0x82)


@proves("", "4.13.1-1")
def properties_of_other_packets_in_subscribe_are_malformed(t):
    for item in (prop("topic_alias", 1), prop("reason_string", "x"), b"\x7f\0"):
        for raw in (subscribe(5, 1, [(t.topic(), 0)], item), unsubscribe(5, 1, [t.topic()], item)):
            c = t.client()
            c.send(raw)
            c.expect_error(0x81, 0x82)
    c = t.client()
    c.send(unsubscribe(5, 1, [t.topic()], prop("subscription_id", 1)))
    c.expect_error(0x81, 0x82)


@proves(versions=(5,))
def user_properties_in_subscribe_are_read(t):
    c = t.client()
    topic = t.topic()
    c.subscribe(topic, properties=[("user", ("a", "b")), ("user", ("a", "c"))])
    c.send(unsubscribe(5, 9, [topic], [("user", ("a", "b"))]))
    c.expect(UNSUBACK, pid=9, reasons=[0])


@proves("3.8.3-1 4.8.0-1", "3.8.3-1 4.13.1-1", ALL)
def truncated_subscribes_are_malformed(t):
    head = u16(1) + (b"\0" if t.v == 5 else b"")
    for body in (b"", b"\0", u16(1)[:1], head + string("a/b"), head + u16(10) + b"abc", head + string("a") + b"\0\0"):
        c = t.client()
        c.send(packet(8, 2, body))
        c.expect_error(0x81, 0x82)
    for body in (b"", b"\0", head + u16(10) + b"abc", head + b"\0"):
        c = t.client()
        c.send(packet(10, 2, body))
        c.expect_error(0x81, 0x82)


@proves("", "2.2.2-1")
def suback_and_unsuback_have_a_property_length(t):
    c = t.client()
    topic = t.topic()
    c.send(subscribe(5, 1, [(topic, 0)]))
    p = c.expect(SUBACK)
    check(p.raw[4] == len(p.raw) - 6, "no property length in %r", p)
    c.send(unsubscribe(5, 2, [topic]))
    p = c.expect(UNSUBACK)
    check(p.raw[4] == len(p.raw) - 6, "no property length in %r", p)


@proves("4.5.0-1", "4.5.0-1", ALL)
def a_message_reaches_every_subscriber(t):
    topic = t.topic()
    subscribers = [t.client() for _ in range(12)]
    for i, s in enumerate(subscribers):
        s.subscribe((topic, i % 3))
    subscribers[0].publish(topic, "all", qos=0)
    p = t.client()
    p.publish(topic, "two", qos=2)
    for i, s in enumerate(subscribers):
        s.message(topic, "all", qos=0)
        s.message(topic, "two", qos=i % 3)


@proves(versions=(4, 5))
def a_message_crosses_protocol_versions(t):
    topic = t.topic()
    subscribers = [t.client(version=v) for v in ALL]
    for s in subscribers:
        s.subscribe((topic, 1))
    p = t.client()
    p.publish(topic, "any", qos=1, **({"properties": {"user": ("k", "v"), "content_type": "t"}} if t.v == 5 else {}))
    for s in subscribers:
        s.message(topic, "any", qos=1)


@proves("4.7.3-3", "4.7.3-3", (4, 5))
def deep_topics_work_or_are_refused_in_order(t):
    topic = t.topic("/" + "/".join("x" * 100))
    s, p = t.client(), t.client()
    s.subscribe((topic, 1))
    p.publish(topic, "deep", qos=1)
    s.message(topic, "deep")


@proves("3.8.4-4 3.8.4-3", "3.8.4-5 3.8.4-3", ALL)
def the_same_filter_twice_in_a_subscribe(t):
    topic = t.topic()
    c, p = t.client(), t.client()
    c.subscribe((topic, 2), (topic, 0))
    p.publish(topic, "x", qos=2)
    c.message(topic, "x", qos=0)
    t.nothing(p, c)
    c.unsubscribe(topic, topic, codes=[0, 0x11])
