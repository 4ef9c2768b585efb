// Drives mqtt.js through what people do with it: mqttjs_client.js URL [CERTIFICATE]; the last line is
// `passed`.

const assert = require("assert");
const { readFileSync } = require("fs");
const { connect: start, connectAsync } = require("mqtt");

const [url, certificate] = process.argv.slice(2);
const tls = certificate ? { ca: readFileSync(certificate), family: 4 } : {};
const deadline = setTimeout(() => {
  console.log("it takes too long");
  process.exit(1);
}, 20000);

const connect = (protocolVersion, clientId, options = {}) =>
  connectAsync(url, { protocolVersion, clientId, reconnectPeriod: 0, ...tls, ...options });

// The messages that come while `during` runs, and then until there are `count`.
const collect = async (client, count, during) => {
  const messages = [];
  const all = new Promise((resolve) => {
    client.on("message", (topic, payload, packet) => {
      messages.push({ topic, text: payload.toString(), length: payload.length, packet });
      if (messages.length === count) resolve();
    });
  });
  await during();
  await all;
  client.removeAllListeners("message");
  return messages;
};

const roundTrip = async (version) => {
  const client = await connect(version, `js-${version}`);
  await client.subscribeAsync(`js/${version}/#`, { qos: 2 });
  const large = "x".repeat(200000);
  const messages = await collect(client, 4, async () => {
    for (const qos of [0, 1, 2]) await client.publishAsync(`js/${version}/${qos}`, `hello ${qos}`, { qos });
    await client.publishAsync(`js/${version}/large`, large, { qos: 1 });
  });
  assert.deepStrictEqual(messages.slice(0, 3).map((message) => message.text), ["hello 0", "hello 1", "hello 2"]);
  assert.strictEqual(messages[3].length, large.length);
  await client.endAsync();
};

const offline = async (version) => {
  const options = { clean: false, properties: version === 5 ? { sessionExpiryInterval: 3600 } : undefined };
  const id = `js-offline-${version}`;
  const first = await connect(version, id, options);
  await first.subscribeAsync(`js-offline/${version}`, { qos: 1 });
  await first.endAsync();
  const other = await connect(version, `js-other-${version}`);
  for (let number = 0; number < 10; number += 1) {
    await other.publishAsync(`js-offline/${version}`, String(number), { qos: 1 });
  }
  const again = start(url, { protocolVersion: version, clientId: id, reconnectPeriod: 0, ...tls, ...options });
  const messages = await collect(again, 10, async () => {});
  assert.deepStrictEqual(messages.map((message) => Number(message.text)), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await again.endAsync();
  await other.endAsync();
};

(async () => {
  for (const version of [4, 5]) {
    await roundTrip(version);
    await offline(version);
  }
  clearTimeout(deadline);
  console.log("passed");
})().catch((error) => {
  console.log(error);
  process.exit(1);
});
