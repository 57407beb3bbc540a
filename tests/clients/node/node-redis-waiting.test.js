// node-redis: what waits for others, and what walks over many keys.

import assert from 'node:assert/strict';

import { eachNodeRedis } from './node-redis-kinds.js';
import { heard, numbersBelow } from './values.js';

eachNodeRedis('streams: a group shares one', async ({ connect, key }) => {
  const client = await connect();
  const added = await Promise.all(numbersBelow(200).map((number) => client.xAdd(key('x'), '*', { n: String(number) })));
  await client.xGroupCreate(key('x'), 'group', '0');
  const seen = await Promise.all(['alice', 'bob', 'carol'].map(async (name) => {
    const [consumer, own] = [await connect(), []];
    for (;;) {
      const streams = await consumer.xReadGroup('group', name, { key: key('x'), id: '>' }, { COUNT: 7 });
      if (!streams) return own;
      const ids = streams[0].messages.map(({ id }) => id);
      assert.equal(await consumer.xAck(key('x'), 'group', ids), ids.length);
      own.push(...ids);
    }
  }));
  assert.deepEqual(seen.flat().sort(), added.sort());
  assert.equal((await client.xPending(key('x'), 'group')).pending, 0);
});

eachNodeRedis('streams: waited for', async ({ connect, key }) => {
  const [client, consumer] = [await connect(), await connect()];
  await client.xGroupCreate(key('x'), 'group', '$', { MKSTREAM: true });
  const consumed = (async () => {
    const seen = [];
    while (seen.length < 20) {
      const streams = await consumer.xReadGroup('group', 'waits', { key: key('x'), id: '>' }, { BLOCK: 20_000 });
      seen.push(...streams[0].messages.map(({ message }) => Number(message.n)));
    }
    return seen;
  })();
  for (const number of numbersBelow(20)) await client.xAdd(key('x'), '*', { n: String(number) });
  assert.deepEqual(await consumed, numbersBelow(20));
});

eachNodeRedis('blocking: after the timeout there is nothing', async ({ connect, key }) => {
  const client = await connect();
  assert.equal(await client.blPop(key('nosuch'), 0.05), null);
  await client.rPush(key('l'), 'a');
  assert.equal(await client.blMove(key('l'), key('m'), 'LEFT', 'RIGHT', 20), 'a');
});

eachNodeRedis('blocking: a queue hands out everything once', async ({ connect, key }) => {
  const client = await connect();
  const consumers = numbersBelow(4).map(async () => {
    const [consumer, seen] = [await connect(), []];
    for (;;) {
      const { element } = await consumer.blPop(key('queue'), 20);
      if (element === 'end') return seen;
      seen.push(Number(element));
    }
  });
  for (const number of numbersBelow(300)) await client.rPush(key('queue'), String(number));
  await client.rPush(key('queue'), ['end', 'end', 'end', 'end']);
  const seen = (await Promise.all(consumers)).flat();
  assert.deepEqual(seen.sort((a, b) => a - b), numbersBelow(300));
});

eachNodeRedis('pubsub: messages arrive in order', async ({ connect, key }) => {
  const [client, subscriber] = [await connect(), await connect()];
  let listen;
  const messages = heard(100, (listener) => { listen = listener; });
  await subscriber.subscribe(key('channel'), (message) => listen(message));
  for (const number of numbersBelow(100)) await client.publish(key('channel'), String(number));
  // The cluster's client publishes by any node, which may overtake one another.
  assert.deepEqual((await messages).map(Number).sort((a, b) => a - b), numbersBelow(100));
  await subscriber.unsubscribe(key('channel'));
});

eachNodeRedis('pubsub: patterns and shard channels', async ({ connect, key, kind }) => {
  const [client, subscriber, prefix] = [await connect(), await connect(), kind.replace(' ', '-')];
  let listen;
  const messages = heard(3, (listener) => { listen = listener; });
  await subscriber.pSubscribe(`${prefix}:?`, (message, channel) => listen([channel, message]));
  await subscriber.sSubscribe(key('shard'), (message, channel) => listen([channel, message]));
  for (const channel of [`${prefix}:a`, `${prefix}:bc`, `${prefix}:d`]) await client.publish(channel, 'v');
  await client.sPublish(key('shard'), 'v');
  const expected = [[`${prefix}:a`, 'v'], [`${prefix}:d`, 'v'], [key('shard'), 'v']];
  assert.deepEqual((await messages).sort(), expected.sort());
});

eachNodeRedis('scan: every key and field once', async ({ connect, key, kind }) => {
  const [client, prefix] = [await connect(), `${kind}:scan:`];
  const names = numbersBelow(500).map((number) => `${prefix}${number}`);
  await Promise.all(names.map((name) => client.set(name, '1')));
  await client.hSet(key('h'), Object.fromEntries(names.map((name) => [name, name])));
  const nodes = client.masters ? await Promise.all(client.masters.map((master) => client.nodeClient(master))) : [client];
  const [found, fields] = [new Set(), new Set()];
  for (const node of nodes) {
    for await (const keys of node.scanIterator({ MATCH: `${prefix}*`, COUNT: 50 })) keys.forEach((name) => found.add(name));
  }
  assert.deepEqual([...found].sort(), names.toSorted());
  for (let cursor = '0', first = true; first || cursor !== '0'; first = false) {
    const page = await client.hScan(key('h'), cursor);
    page.entries.forEach(({ field }) => fields.add(field));
    cursor = String(page.cursor);
  }
  assert.equal(fields.size, 500);
});
