"""Shared subscriptions."""
from harness import check, proves, same
from mqtt import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, ack


def group(t, topic, count, opts=1, name=None, **arguments):
    """A share name's filter and `count` clients that subscribe to it."""
    shared = "$share/%s/%s" % (name or t.id(), topic)
    members = [t.session(**arguments) for _ in range(count)]
    for m in members:
        m.subscribe((shared, opts))
    return shared, members


@proves("", "4.8.2-1 4.8.2-2 4.5.0-1")
def each_message_goes_to_one_member(t):
    topic = t.topic()
    _, members = group(t, topic, 3, 2)
    other = t.client()
    other.subscribe((topic, 2))
    p = t.client()
    end = t.topic()
    for m in members:
        m.subscribe(end)
    for i in range(30):
        p.publish(topic, "%d" % i, qos=i % 3)
    p.publish(end, "end")
    same("an ordinary subscriber", len(other.messages(30)), 30)
    got = []
    for m in members:
        mine = m.messages_until(lambda so_far: any(x.topic == end for x in so_far))
        got.append(sorted(int(x.payload) for x in mine if x.topic == topic))
    same("all messages, once each", sorted(sum(got, [])), list(range(30)))


@proves(versions=(5,))
def every_member_gets_its_part(t):
    # The standard leaves the choice to the server; a member that never gets anything is of no use.
    topic = t.topic()
    _, members = group(t, topic, 2, 0)
    p = t.client()
    for i in range(100):
        p.publish(topic, "%d" % i)
    counts = [len(got) for got in t.fence(p, *members)]
    check(min(counts) > 0 and sum(counts) == 100, "messages for each member: %r", counts)


@proves("", "4.8.2-1")
def every_group_gets_every_message(t):
    topic = t.topic()
    p = t.client()
    _, one = group(t, topic, 2, 1)
    _, two = group(t, topic, 1, 1)
    _, wild = group(t, topic + "/#", 1, 1)
    for i in range(10):
        p.publish(topic, "%d" % i, qos=1)
    same("second group", [x.payload for x in two[0].messages(10)], [b"%d" % i for i in range(10)])
    same("wildcard group", len(wild[0].messages(10)), 10)
    got = sum((t.fence(p, *one)), [])
    same("first group", sorted(int(x.payload) for x in got), list(range(10)))


@proves("", "4.8.2-3")
def each_member_gets_its_own_qos(t):
    topic = t.topic()
    name, p = t.id(), t.client()
    for granted in (0, 1, 2):
        shared, (m,) = group(t, topic, 1, granted, name)
        p.publish(topic, "x", qos=2)
        m.message(topic, "x", qos=granted)
        m.unsubscribe(shared)
        m.disconnect(0, {"session_expiry": 0})


@proves("", "3.10.4-1 3.10.4-2")
def leaving_a_group_leaves_the_messages_to_the_others(t):
    topic = t.topic()
    shared, (a, b) = group(t, topic, 2)
    p = t.client()
    a.unsubscribe(shared)
    a.unsubscribe(shared, codes=[0x11])
    a.unsubscribe(topic, codes=[0x11])
    for i in range(10):
        p.publish(topic, "%d" % i, qos=1)
    same("the member that stays", [x.payload for x in b.messages(10)], [b"%d" % i for i in range(10)])
    t.nothing(p, a)


# mosquitto 2.0.11: loses them (4.8.2 only says SHOULD).
@proves(versions=(5,))
def unacknowledged_messages_of_a_member_that_goes_go_to_others(t):
    # 4.8.2: SHOULD for QoS 1 when the session of the member ends.
    topic = t.topic()
    _, (a, b) = group(t, topic, 2, properties={"session_expiry": 0})
    p = t.client()
    for i in range(10):
        p.publish(topic, "%d" % i, qos=1)
    held = [x for x in a.ping() if x.kind == PUBLISH]
    a.drop()
    got = [int(x.payload) for x in b.messages(10)]
    same("messages", sorted(got), list(range(10)))
    check(len(held) < 10, "one member got everything")


# mosquitto 2.0.11: queues for members that are offline, which the standard allows (4.8.2).
@proves(versions=(5,))
def offline_members_do_not_swallow_messages(t):
    topic = t.topic()
    _, (a, b) = group(t, topic, 2)
    a.drop()
    p = t.client()
    for i in range(10):
        p.publish(topic, "%d" % i, qos=1)
    same("the member online", sorted(int(x.payload) for x in b.messages(10)), list(range(10)))


@proves("", "4.8.2-4")
def qos_2_delivery_is_completed_by_the_member_that_has_it(t):
    topic = t.topic()
    _, (a, b) = group(t, topic, 2, 2)
    p = t.client()
    owner = None
    p.publish(topic, "mine", qos=2)
    for m, other in ((a, b), (b, a)):
        got = [x for x in m.ping() if x.kind == PUBLISH]
        if got:
            owner, idle, first = m, other, got[0]
    check(owner, "nobody got the message")
    owner.drop()
    idle.quiet()
    owner = t.session(owner.id)
    again = owner.expect(PUBLISH, pid=first.pid, payload=b"mine", dup=True)
    owner.send(ack(PUBREC, again.pid))
    owner.expect(PUBREL, pid=again.pid)
    owner.drop()
    owner = t.session(owner.id)
    owner.expect(PUBREL, pid=again.pid)
    owner.send(ack(PUBCOMP, again.pid))
    t.nothing(p, owner, idle)


@proves("", "4.8.2-5")
def qos_2_delivery_in_flight_dies_with_its_session(t):
    topic = t.topic()
    _, (a, b) = group(t, topic, 2, 2, properties={"session_expiry": 0})
    p = t.client()
    p.publish(topic, "mine", qos=2)
    owner = None
    for m, other in ((a, b), (b, a)):
        if [x for x in m.ping() if x.kind == PUBLISH]:
            owner, idle = m, other
    check(owner, "nobody got the message")
    owner.disconnect()
    t.nothing(p, idle)


@proves("", "4.8.2-6")
def a_refused_message_goes_to_nobody_else(t):
    topic = t.topic()
    _, members = group(t, topic, 2, 2)
    p = t.client()
    for qos, kind in ((1, PUBACK), (2, PUBREC)):
        for i in range(4):
            p.publish(topic, "%d" % i, qos=qos)
        refused = 0
        for m in members:
            for x in m.ping():
                same("kind", x.kind, PUBLISH)
                m.send(ack(kind, x.pid, 0x80))
                refused += 1
        same("messages", refused, 4)
        t.nothing(p, *members)


@proves("", "3.3.4-3")
def shared_and_ordinary_subscription_of_one_client(t):
    topic = t.topic()
    shared, (m,) = group(t, topic, 1, 1)
    m.subscribe((shared, 1), properties={"subscription_id": 5})
    m.subscribe((topic, 1), properties={"subscription_id": 6})
    end = t.topic()
    m.subscribe(end)
    p = t.client()
    p.publish(topic, "x", qos=1)
    p.publish(end, "end")
    got = m.messages_until(lambda so_far: any(x.topic == end for x in so_far))
    ids = sorted(i for x in got for i in x.all("subscription_id"))
    same("identifiers", ids, [5, 6])


@proves("", "4.8.2-1")
def share_names_are_not_mixed_up(t):
    topic = t.topic()
    name, p = t.id(), t.client()
    _, (a,) = group(t, topic, 1, 1, name)
    _, (b,) = group(t, topic, 1, 1, name.upper())
    _, (c,) = group(t, "/" + topic, 1, 1, name)
    p.publish(topic, "x", qos=1)
    p.publish("/" + topic, "y", qos=1)
    for m, payload in ((a, "x"), (b, "x"), (c, "y")):
        m.message(payload=payload)
    t.nothing(p, a, b, c)


@proves("", "4.5.0-1")
def a_group_of_offline_sessions_loses_nothing(t):
    topic = t.topic()
    _, (a, b) = group(t, topic, 2)
    a.drop()
    b.drop()
    p = t.client()
    for i in range(6):
        p.publish(topic, "%d" % i, qos=1)
    a, b = t.session(a.id), t.session(b.id)
    got = sum(t.fence(p, a, b), [])
    same("messages", sorted(int(x.payload) for x in got), list(range(6)))
