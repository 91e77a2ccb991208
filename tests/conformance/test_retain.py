"""Retained messages."""
from harness import check, proves, same
from mqtt import PUBLISH, options, subscribe

ALL = (3, 4, 5)


def clear(t, *topics):
    c = t.client()
    for topic in topics:
        c.publish(topic, b"", qos=1, retain=True)


@proves("3.3.1-5 3.3.1-6 3.3.1-8 3.3.1-9", "3.3.1-5 3.3.1-9 3.3.1-12", ALL)
def retained_message_reaches_new_subscriptions(t):
    topic = t.topic()
    live, p = t.client(), t.client()
    live.subscribe((topic, 2))
    for qos in (0, 1, 2):
        p.publish(topic, "q%d" % qos, qos, retain=True)
        live.message(topic, "q%d" % qos, qos=qos, retain=False)
        late = t.client()
        late.subscribe((topic, 2))
        late.message(topic, "q%d" % qos, qos=qos, retain=True, dup=False)
    clear(t, topic)


@proves("3.3.1-5 3.8.4-6", "3.3.1-9 3.8.4-8", ALL)
def retained_message_comes_at_the_lower_qos(t):
    topic = t.topic()
    t.client().publish(topic, "two", qos=2, retain=True)
    for granted in (0, 1, 2):
        s = t.client()
        s.subscribe((topic, granted))
        s.message(topic, "two", qos=granted, retain=True)
    clear(t, topic)


@proves("3.3.1-10 3.3.1-11", "3.3.1-6 3.3.1-7", ALL)
def empty_retained_message_is_delivered_and_clears(t):
    topic = t.topic()
    live, p = t.client(), t.client()
    live.subscribe((topic, 1))
    p.publish(topic, "state", qos=1, retain=True)
    live.message(topic, "state")
    for qos in (1, 0):
        p.publish(topic, b"", qos=qos, retain=True)
        live.message(topic, b"", retain=False)
        s = t.client()
        s.subscribe(topic)
        t.nothing(p, s)
        p.publish(topic, "state again", qos=1, retain=True)
        live.message(topic, "state again")
    clear(t, topic)


@proves("3.3.1-12", "3.3.1-8", ALL)
def message_without_retain_leaves_the_retained_one(t):
    topic = t.topic()
    p = t.client()
    p.publish(topic, "kept", qos=1, retain=True)
    p.publish(topic, "passing", qos=1)
    p.publish(topic, b"", qos=1)
    s = t.client()
    s.subscribe(topic)
    s.message(topic, "kept", retain=True)
    t.nothing(p, s)
    clear(t, topic)


@proves("3.3.1-7", "3.3.1-5", ALL)
def retained_qos_0_message_replaces_the_older_one(t):
    topic = t.topic()
    p = t.client()
    p.publish(topic, "old", qos=1, retain=True)
    p.publish(topic, "new", qos=0, retain=True)
    s = t.client()
    s.subscribe(topic)
    s.message(topic, "new", retain=True)
    t.nothing(p, s)
    clear(t, topic)


@proves("3.3.1-6 4.7.1-2 4.7.1-3", "3.3.1-9 4.7.1-1 4.7.1-2", ALL)
def wildcard_subscription_gets_all_matching_retained_messages(t):
    base = t.topic()
    topics = [base, base + "/a", base + "/a/b", base + "/c/b", base + "/", base + "/c/b/d"]
    p = t.client()
    for topic in topics:
        p.publish(topic, topic, qos=1, retain=True)
    for tail, wanted in (("/#", topics), ("/+", [topics[1], topics[4]]), ("/+/b", topics[2:4]),
                         ("/+/b/#", topics[2:4] + topics[5:]), ("/a/#", topics[1:3]), ("/+/+/+", topics[5:])):
        s = t.client()
        s.subscribe((base + tail, 1))
        got = s.messages(len(wanted), retain=True)
        same("topics for " + tail, sorted(x.topic for x in got), sorted(wanted))
        t.nothing(p, s)
    clear(t, *topics)


@proves("3.8.4-3", "3.3.1-9 3.8.4-3 3.8.4-4", ALL)
def subscribing_again_sends_retained_messages_again(t):
    topic = t.topic()
    p, s = t.client(), t.client()
    p.publish(topic, "state", qos=1, retain=True)
    for _ in range(3):
        s.subscribe((topic, 1))
        s.message(topic, "state", retain=True)
    t.nothing(p, s)
    clear(t, topic)


@proves("3.3.1-6 3.8.4-4", "3.3.1-9 3.8.4-5")
def each_filter_of_a_subscribe_gets_its_retained_messages(t):
    a, b = t.topic(), t.topic()
    p, s = t.client(), t.client()
    p.publish(a, "a", qos=1, retain=True)
    p.publish(b, "b", qos=1, retain=True)
    s.subscribe((a, 1), (t.topic(), 1), (b, 1))
    same("messages", sorted(x.payload for x in s.messages(2, retain=True)), [b"a", b"b"])
    clear(t, a, b)


@proves("", "3.3.1-10 3.3.1-11 3.3.1-9")
def retain_handling(t):
    topic = t.topic()
    p, s = t.client(), t.client()
    p.publish(topic, "state", qos=1, retain=True)
    s.subscribe((topic, options(1, retain_handling=2)))
    t.nothing(p, s)
    s.subscribe((topic, options(1, retain_handling=1)))   # exists already
    t.nothing(p, s)
    s.unsubscribe(topic)
    s.subscribe((topic, options(1, retain_handling=1)))   # is new
    s.message(topic, "state", retain=True)
    s.subscribe((topic, options(1, retain_handling=0)))
    s.message(topic, "state", retain=True)
    t.nothing(p, s)
    clear(t, topic)


@proves("", "3.3.1-10")
def retain_handling_1_knows_subscriptions_of_a_resumed_session(t):
    topic = t.topic()
    p = t.client()
    p.publish(topic, "state", qos=1, retain=True)
    s = t.session()
    s.subscribe((topic, options(1, retain_handling=1)))
    s.message(topic, "state", retain=True)
    s.disconnect()
    s = t.session(s.id)
    s.subscribe((topic, options(1, retain_handling=1)))
    t.nothing(p, s)
    clear(t, topic)


@proves("", "3.8.3-5 4.13.1-1")
def retain_handling_3_is_an_error(t):
    c = t.client()
    c.send(subscribe(5, 1, [(t.topic(), 0x30)]))
    c.expect_error(0x81, 0x82)


@proves("", "3.3.1-12 3.3.1-13")
def retain_as_published(t):
    topic = t.topic()
    kept, cleared, p = t.client(), t.client(), t.client()
    kept.subscribe((topic, options(1, retain_as_published=True)))
    cleared.subscribe((topic, options(1)))
    for retain in (True, False):
        p.publish(topic, "x", qos=1, retain=retain)
        kept.message(topic, "x", retain=retain)
        cleared.message(topic, "x", retain=False)
    late = t.client()  # a new subscription gets it with RETAIN 1 whatever its option says
    late.subscribe((topic, options(1)))
    late.message(topic, "x", retain=True)
    clear(t, topic)


@proves("", "3.3.2-5 3.3.2-6")
def retained_messages_expire(t):
    gone, kept = t.topic(), t.topic()
    p = t.client()
    p.publish(gone, "short", qos=1, retain=True, properties={"message_expiry": 1})
    p.publish(kept, "long", qos=1, retain=True, properties={"message_expiry": 100})
    t.wait(2.3)
    s = t.client()
    s.subscribe((gone, 1), (kept, 1))
    x = s.message(kept, "long", retain=True)
    check(96 <= x.get("message_expiry", 0) <= 98, "message expiry %r", x.get("message_expiry"))
    t.nothing(p, s)
    clear(t, kept)


@proves("", "3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20")
def retained_messages_keep_their_properties(t):
    topic = t.topic()
    user = [("b", "1"), ("a", "2"), ("b", "3")]
    t.client().publish(topic, "text", qos=1, retain=True, properties=[("user", x) for x in user] + [
        ("payload_format", 1), ("content_type", "t"), ("response_topic", "r"), ("correlation_data", b"\0c")])
    s = t.client()
    s.subscribe(topic)
    x = s.message(topic, "text", retain=True)
    same("user properties", x.all("user"), user)
    same("properties", [x.get(n) for n in ("payload_format", "content_type", "response_topic", "correlation_data")],
         [1, "t", "r", b"\0c"])
    clear(t, topic)


@proves("", "3.3.4-3")
def retained_messages_carry_the_subscription_identifier(t):
    topic = t.topic()
    p = t.client()
    p.publish(topic, "state", qos=1, retain=True)
    s = t.client()
    s.subscribe((topic, 1), properties={"subscription_id": 268435455})
    same("identifiers", s.message(topic, "state").all("subscription_id"), [268435455])
    clear(t, topic)


# mosquitto 2.0.11: sends them. mosquitto is wrong (3.8.4 and 4.8.2, without a number).
@proves(versions=(5,))
def shared_subscriptions_get_no_retained_messages(t):
    topic = t.topic()
    p, s = t.client(), t.client()
    p.publish(topic, "state", qos=1, retain=True)
    s.subscribe(("$share/g%s/%s" % (t.id(), topic), 1))
    t.nothing(p, s)
    p.publish(topic, "live", qos=1)
    s.message(topic, "live", retain=False)
    clear(t, topic)


@proves("4.7.2-1", "4.7.2-1", ALL)
def retained_dollar_topics_do_not_match_leading_wildcards(t):
    # $SYS messages are retained on servers that have them; no other topic with $ can be relied on.
    s = t.client()
    s.subscribe("+/broker/version", "+/broker/uptime")
    s.quiet()


@proves("3.3.1-9", "3.3.1-5 4.6.0-5", ALL)
def retained_and_live_messages_of_a_topic_stay_in_order(t):
    topic = t.topic()
    p, s = t.client(), t.client()
    p.publish(topic, "0", qos=1, retain=True)
    s.send(subscribe(t.v, 1, [(topic, 1)]))
    for i in range(1, 20):
        p.publish(topic, "%d" % i, qos=1, retain=True)
    seen = []
    while not seen or seen[-1] != 19:
        x = s.receive()
        if x.kind == PUBLISH:
            s.answer(x)
            seen.append(int(x.payload))
    same("order", seen, sorted(seen))
    clear(t, topic)
