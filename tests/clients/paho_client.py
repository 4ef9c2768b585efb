"""Drives paho-mqtt through what people do with it: paho_client.py PORT; the last line is `passed`."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT = int(sys.argv[1])
DEADLINE = 10


class Client:
    """A client whose callbacks fill queues."""

    def __init__(self, client_id, version, clean=True, expiry=0, will=None):
        self.messages, self.events, self.version = queue.Queue(), queue.Queue(), version
        v5 = version == mqtt.MQTTv5
        extra = {} if v5 else {"clean_session": clean}
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, **extra)
        self.mqtt.on_connect = lambda c, u, flags, reason, p: self.events.put((reason, flags.session_present))
        self.mqtt.on_subscribe = lambda c, u, mid, reasons, p: self.events.put(reasons)
        self.mqtt.on_unsubscribe = lambda c, u, mid, reasons, p: self.events.put(reasons)
        self.mqtt.on_message = lambda c, u, message: self.messages.put(message)
        if will:
            self.mqtt.will_set(*will, qos=1)
        properties = None
        if v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
        connect = {"clean_start": clean, "properties": properties} if v5 else {}
        self.mqtt.connect("127.0.0.1", PORT, **connect)
        self.mqtt.loop_start()
        reason, self.session_present = self.events.get(timeout=DEADLINE)
        assert not reason.is_failure, reason

    def subscribe(self, *args, **kwargs):
        self.mqtt.subscribe(*args, **kwargs)
        return self.events.get(timeout=DEADLINE)

    def publish(self, *args, **kwargs):
        self.mqtt.publish(*args, **kwargs).wait_for_publish(DEADLINE)

    def message(self):
        return self.messages.get(timeout=DEADLINE)

    def leave(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def round_trip(version):
    client = Client(f"round-{version}", version)
    for qos in range(3):
        client.subscribe(f"python/{version}/{qos}/+", qos)
        client.publish(f"python/{version}/{qos}/x", f"hello {qos}", qos)
        message = client.message()
        assert (message.payload, message.qos, message.retain) == (f"hello {qos}".encode(), qos, False), message
    client.leave()


def offline(version, qos):
    arguments = {"clean": False, "expiry": 3600}
    client = Client(f"offline-{version}-{qos}", version, **arguments)
    client.subscribe(f"offline/{version}/{qos}", 2)
    client.leave()
    other = Client(f"other-{version}", version)
    for number in range(20):
        other.publish(f"offline/{version}/{qos}", str(number), qos)
    client = Client(f"offline-{version}-{qos}", version, **arguments)
    # CONNACK of 3.1 does not say.
    assert client.session_present or version == mqtt.MQTTv31
    assert [int(client.message().payload) for _ in range(20)] == list(range(20))
    client.leave()
    other.leave()


def properties():
    client = Client("properties", mqtt.MQTTv5)
    subscription = Properties(PacketTypes.SUBSCRIBE)
    subscription.SubscriptionIdentifier = 77
    options = SubscribeOptions(qos=1, retainAsPublished=True)
    client.subscribe("properties/#", options=options, properties=subscription)
    sent = Properties(PacketTypes.PUBLISH)
    sent.ContentType, sent.ResponseTopic, sent.CorrelationData = "text/plain", "answer/here", b"\x01\x02"
    sent.UserProperty = [("a", "1"), ("a", "2")]
    sent.MessageExpiryInterval, sent.PayloadFormatIndicator = 100, 1
    client.publish("properties/all", "x", 1, retain=True, properties=sent)
    message = client.message()
    got = message.properties
    assert message.retain
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "answer/here", b"\x01\x02")
    assert got.UserProperty == [("a", "1"), ("a", "2")], got.UserProperty
    assert got.SubscriptionIdentifier == [77] and got.PayloadFormatIndicator == 1
    assert got.MessageExpiryInterval in (99, 100)
    # No Local: what one publishes oneself does not come back.
    client.subscribe("mine/#", options=SubscribeOptions(qos=0, noLocal=True))
    client.publish("mine/x", "hidden", 1)
    client.publish("properties/marker", "seen", 1)
    assert client.message().payload == b"seen"
    client.leave()


def will():
    watcher = Client("watcher", mqtt.MQTTv5)
    watcher.subscribe("gone/#", 1)
    mortal = Client("mortal", mqtt.MQTTv311, will=("gone/mortal", "farewell"))
    mortal.mqtt.loop_stop()
    mortal.mqtt.socket().close()
    assert watcher.message().payload == b"farewell"
    watcher.leave()


for version in (mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5):
    round_trip(version)
    offline(version, 1)
    offline(version, 2)
properties()
will()
print("passed")
