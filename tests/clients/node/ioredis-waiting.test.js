// ioredis: what waits for others, and what walks over many keys.

import assert from 'node:assert/strict';

import { eachIoredis } from './ioredis-kinds.js';
import { heard, numbersBelow } from './values.js';

eachIoredis('streams: a group shares one', async ({ connect, key }) => {
  const client = await connect();
  const added = await Promise.all(numbersBelow(200).map((number) => client.xadd(key('x'), '*', 'n', number)));
  await client.xgroup('CREATE', key('x'), 'group', '0');
  const seen = await Promise.all(['alice', 'bob', 'carol'].map(async (name) => {
    const [consumer, own] = [await connect(), []];
    for (;;) {
      const streams = await consumer.xreadgroup('GROUP', 'group', name, 'COUNT', 7, 'STREAMS', key('x'), '>');
      if (!streams) return own;
      const ids = streams[0][1].map(([id]) => id);
      assert.equal(await consumer.xack(key('x'), 'group', ...ids), ids.length);
      own.push(...ids);
    }
  }));
  assert.deepEqual(seen.flat().sort(), added.sort());
  assert.equal((await client.xpending(key('x'), 'group'))[0], 0);
});

eachIoredis('streams: waited for', async ({ connect, key }) => {
  const [client, consumer] = [await connect(), await connect()];
  await client.xgroup('CREATE', key('x'), 'group', '$', 'MKSTREAM');
  const consumed = (async () => {
    const seen = [];
    while (seen.length < 20) {
      const streams = await consumer.xreadgroup('GROUP', 'group', 'waits', 'BLOCK', 20_000, 'STREAMS', key('x'), '>');
      seen.push(...streams[0][1].map(([, [, value]]) => Number(value)));
    }
    return seen;
  })();
  for (const number of numbersBelow(20)) await client.xadd(key('x'), '*', 'n', number);
  assert.deepEqual(await consumed, numbersBelow(20));
});

eachIoredis('blocking: after the timeout there is nothing', async ({ connect, key }) => {
  const client = await connect();
  assert.equal(await client.blpop(key('nosuch'), 0.05), null);
  await client.rpush(key('l'), 'a');
  assert.equal(await client.blmove(key('l'), key('m'), 'LEFT', 'RIGHT', 20), 'a');
});

eachIoredis('blocking: a queue hands out everything once', async ({ connect, key }) => {
  const client = await connect();
  const consumers = numbersBelow(4).map(async () => {
    const [consumer, seen] = [await connect(), []];
    for (;;) {
      const [, item] = await consumer.blpop(key('queue'), 20);
      if (item === 'end') return seen;
      seen.push(Number(item));
    }
  });
  for (const number of numbersBelow(300)) await client.rpush(key('queue'), number);
  await client.rpush(key('queue'), 'end', 'end', 'end', 'end');
  const seen = (await Promise.all(consumers)).flat();
  assert.deepEqual(seen.sort((a, b) => a - b), numbersBelow(300));
});

eachIoredis('pubsub: messages arrive in order', async ({ connect, key, kind }) => {
  const [client, subscriber] = [await connect(), await connect()];
  const messages = heard(100, (listen) => subscriber.on('message', (channel, message) => {
    assert.equal(channel, key('channel'));
    listen(message);
  }));
  assert.equal(await subscriber.subscribe(key('channel')), 1);
  for (const number of numbersBelow(100)) await client.publish(key('channel'), number);
  const seen = (await messages).map(Number);
  // The cluster's client publishes by any node, which may overtake one another.
  assert.deepEqual(kind === 'ioredis' ? seen : seen.sort((a, b) => a - b), numbersBelow(100));
  assert.equal(await subscriber.unsubscribe(key('channel')), 0);
});

eachIoredis('pubsub: patterns', async ({ connect, key, kind }) => {
  const [client, subscriber, prefix] = [await connect(), await connect(), kind.replace(' ', '-')];
  const messages = heard(2, (listen) => subscriber.on('pmessage', (...all) => listen(all)));
  await subscriber.psubscribe(`${prefix}:?`);
  for (const channel of [`${prefix}:a`, `${prefix}:bc`, `${prefix}:d`]) await client.publish(channel, key('m'));
  assert.deepEqual(await messages, ['a', 'd'].map((end) => [`${prefix}:?`, `${prefix}:${end}`, key('m')]));
});

eachIoredis('scan: every key and field once', async ({ connect, key, kind }) => {
  const [client, prefix] = [await connect(), `${kind}:scan:`];
  const names = numbersBelow(500).map((number) => `${prefix}${number}`);
  await Promise.all(names.map((name) => client.set(name, 1)));
  await client.hset(key('h'), Object.fromEntries(names.map((name) => [name, name])));
  const found = new Set();
  for (const node of client.nodes ? client.nodes('master') : [client]) {
    for await (const keys of node.scanStream({ match: `${prefix}*`, count: 50 })) keys.forEach((name) => found.add(name));
  }
  assert.deepEqual([...found].sort(), names.toSorted());
  const fields = new Map();
  for await (const pairs of client.hscanStream(key('h'))) {
    for (let place = 0; place < pairs.length; place += 2) fields.set(pairs[place], pairs[place + 1]);
  }
  assert.equal(fields.size, 500);
});
