// ioredis with its default settings.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import Redis, { ReplyError } from 'ioredis';

import { address, cacheHits, hasNearside, killUpstreamConnections } from './servers.js';
import { BIG, EVERY_BYTE, keysOf, numbersBelow, untilItSucceeds, WRONG_TYPE } from './values.js';

let client;
before(() => { client = new Redis(address); });
after(() => client.disconnect());

test('ioredis strings', async (t) => {
  const key = keysOf(t);
  assert.equal(await client.set(key('k'), 'v'), 'OK');
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await client.get(key('nosuch')), null);
  assert.equal(await client.set(key('k'), 'w', 'NX'), null);
  assert.equal(await client.getset(key('k'), 'w'), 'v');
  assert.equal(await client.incrby(key('n'), 5), 5);
  assert.equal(await client.mset(key('a'), 1, key('b'), 2), 'OK');
  assert.deepEqual(await client.mget(key('a'), key('nosuch'), key('b')), ['1', null, '2']);
  assert.equal(await client.del(key('a'), key('b')), 2);
  assert.equal(await client.exists(key('a')), 0);
});

test('ioredis hashes', async (t) => {
  const key = keysOf(t);
  assert.equal(await client.hset(key('h'), { f: 'v', g: 'w' }), 2);
  assert.equal(await client.hget(key('h'), 'f'), 'v');
  assert.deepEqual({ ...await client.hgetall(key('h')) }, { f: 'v', g: 'w' });
  assert.equal(await client.hdel(key('h'), 'f'), 1);
  assert.deepEqual({ ...await client.hgetall(key('h')) }, { g: 'w' });
});

test('ioredis lists', async (t) => {
  const key = keysOf(t);
  // "message" is also what a published message begins with.
  assert.equal(await client.rpush(key('l'), 'message', 'a', 'b'), 3);
  assert.deepEqual(await client.lrange(key('l'), 0, -1), ['message', 'a', 'b']);
  assert.equal(await client.lpop(key('l')), 'message');
  assert.equal(await client.llen(key('l')), 2);
});

test('ioredis pipelines', async (t) => {
  const key = keysOf(t);
  const replies = await client.pipeline()
    .set(key('k'), 'old').get(key('k')).del(key('k')).get(key('k')).rpush(key('k'), 1).get(key('k')).exec();
  assert.deepEqual(replies.slice(0, 5), [[null, 'OK'], [null, 'old'], [null, 1], [null, null], [null, 1]]);
  assert.equal(replies[5][0].message, WRONG_TYPE);

  const pipeline = client.pipeline();
  // Keys of every slot.
  for (const number of numbersBelow(10_000)) pipeline.set(`${t.name}:${number}`, number).get(`${t.name}:${number}`);
  const read = (await pipeline.exec()).filter((_, place) => place % 2 === 1);
  assert.deepEqual(read, numbersBelow(10_000).map((number) => [null, String(number)]));
});

test('ioredis binary keys and values', async (t) => {
  const key = (bytes) => Buffer.concat([Buffer.from(keysOf(t)('')), bytes]);
  for (const bytes of [EVERY_BYTE, ...numbersBelow(256).map((value) => Buffer.from([value]))]) {
    assert.equal(await client.set(key(bytes), bytes), 'OK');
    assert.deepEqual(await client.getBuffer(key(bytes)), bytes);
    assert.deepEqual(await client.getBuffer(key(bytes)), bytes);
  }
  assert.equal(await client.hset(keysOf(t)('hash'), EVERY_BYTE, EVERY_BYTE), 1);
  assert.deepEqual(await client.hgetBuffer(keysOf(t)('hash'), EVERY_BYTE), EVERY_BYTE);
});

test('ioredis big values', async (t) => {
  const key = keysOf(t);
  assert.equal(await client.set(key('k'), BIG), 'OK');
  for (let turn = 0; turn < 3; turn += 1) {
    assert.ok(BIG.equals(await client.getBuffer(key('k'))));
  }
});

test('ioredis: the second read is a hit', { skip: !hasNearside && 'no cache without Nearside' }, async (t) => {
  const key = keysOf(t);
  await client.set(key('k'), 'v');
  const before = await cacheHits();
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await cacheHits(), before);
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await cacheHits(), before + 1);
});

test('ioredis: a killed client connects again', async (t) => {
  const key = keysOf(t);
  await client.set(key('k'), 'v');
  const id = await client.client('ID');
  const killer = new Redis(address);
  assert.equal(await killer.client('KILL', 'ID', id), 1);
  killer.disconnect();
  assert.equal(await client.get(key('k')), 'v');
  assert.notEqual(await client.client('ID'), id);
});

test('ioredis: killed upstream connections are made anew', async (t) => {
  const key = keysOf(t);
  await client.set(key('k'), 'before');
  assert.equal(await client.get(key('k')), 'before');
  const id = await client.client('ID');
  assert.ok(await killUpstreamConnections() > 0);
  await untilItSucceeds(() => client.set(key('k'), 'after'), isLostUpstream);
  assert.equal(await client.get(key('k')), 'after');
  // The client's own connection has not noticed.
  if (hasNearside) assert.equal(await client.client('ID'), id);
});

function isLostUpstream(error) {
  return error instanceof ReplyError && error.message.startsWith('UPSTREAM ');
}

test('ioredis: errors are the server\'s', async (t) => {
  const key = keysOf(t);
  await client.rpush(key('l'), 1);
  await assert.rejects(client.get(key('l')), (error) => error instanceof ReplyError && error.message === WRONG_TYPE);
  await assert.rejects(client.call('NOSUCH'), (error) => (
    error instanceof ReplyError && error.message.startsWith("ERR unknown command 'NOSUCH'")
  ));
  assert.equal(await client.ping(), 'PONG');
});

test('ioredis: many clients read what they wrote', async (t) => {
  const key = keysOf(t);
  const [clients, turns] = [50, 100];
  await Promise.all(numbersBelow(clients).map(async (number) => {
    const client = new Redis(address);
    const own = `${t.name}:${number}`;
    for (const turn of numbersBelow(turns)) {
      await client.set(own, turn);
      assert.equal(await client.get(own), String(turn));
      assert.equal(await client.get(own), String(turn));
      await client.incr(key('total'));
    }
    client.disconnect();
  }));
  assert.equal(await client.get(key('total')), String(clients * turns));
});
