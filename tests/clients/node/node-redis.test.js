// node-redis with its default settings.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { createClient, ErrorReply, RESP_TYPES } from 'redis';

import { address, cacheHits, hasNearside, killUpstreamConnections } from './servers.js';
import { BIG, EVERY_BYTE, keysOf, numbersBelow, untilItSucceeds, WRONG_TYPE } from './values.js';

let client;
before(async () => { client = await connect(); });
after(() => client.close());

async function connect() {
  const client = createClient({ socket: address });
  // Without a listener, losing the connection would end the program.
  client.on('error', () => {});
  return client.connect();
}

function asBuffers(client) {
  return client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
}

test('node-redis strings', async (t) => {
  const key = keysOf(t);
  assert.equal(await client.set(key('k'), 'v'), 'OK');
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await client.get(key('nosuch')), null);
  assert.equal(await client.set(key('k'), 'w', { condition: 'NX' }), null);
  assert.equal(await client.getSet(key('k'), 'w'), 'v');
  assert.equal(await client.incrBy(key('n'), 5), 5);
  assert.equal(await client.mSet([[key('a'), '1'], [key('b'), '2']]), 'OK');
  assert.deepEqual(await client.mGet([key('a'), key('nosuch'), key('b')]), ['1', null, '2']);
  assert.equal(await client.del([key('a'), key('b')]), 2);
  assert.equal(await client.exists(key('a')), 0);
});

test('node-redis hashes', async (t) => {
  const key = keysOf(t);
  assert.equal(await client.hSet(key('h'), { f: 'v', g: 'w' }), 2);
  assert.equal(await client.hGet(key('h'), 'f'), 'v');
  assert.deepEqual({ ...await client.hGetAll(key('h')) }, { f: 'v', g: 'w' });
  assert.equal(await client.hDel(key('h'), 'f'), 1);
  assert.deepEqual({ ...await client.hGetAll(key('h')) }, { g: 'w' });
});

test('node-redis lists', async (t) => {
  const key = keysOf(t);
  // "message" is also what a published message begins with.
  assert.equal(await client.rPush(key('l'), ['message', 'a', 'b']), 3);
  assert.deepEqual(await client.lRange(key('l'), 0, -1), ['message', 'a', 'b']);
  assert.equal(await client.lPop(key('l')), 'message');
  assert.equal(await client.lLen(key('l')), 2);
});

test('node-redis pipelines', async (t) => {
  const key = keysOf(t);
  const replies = await client.multi()
    .set(key('k'), 'old').get(key('k')).del(key('k')).get(key('k')).rPush(key('k'), '1').execAsPipeline();
  assert.deepEqual(replies, ['OK', 'old', 1, null, 1]);

  // Whatever is asked for in one turn of the event loop is pipelined, too. Keys of every slot.
  const read = await Promise.all(numbersBelow(10_000).map((number) => {
    client.set(`${t.name}:${number}`, String(number));
    return client.get(`${t.name}:${number}`);
  }));
  assert.deepEqual(read, numbersBelow(10_000).map(String));
});

test('node-redis binary keys and values', async (t) => {
  const key = (bytes) => Buffer.concat([Buffer.from(keysOf(t)('')), bytes]);
  for (const bytes of [EVERY_BYTE, ...numbersBelow(256).map((value) => Buffer.from([value]))]) {
    assert.equal(await client.set(key(bytes), bytes), 'OK');
    assert.deepEqual(await asBuffers(client).get(key(bytes)), bytes);
    assert.deepEqual(await asBuffers(client).get(key(bytes)), bytes);
  }
  assert.equal(await client.hSet(keysOf(t)('hash'), EVERY_BYTE, EVERY_BYTE), 1);
  assert.deepEqual(await asBuffers(client).hGet(keysOf(t)('hash'), EVERY_BYTE), EVERY_BYTE);
});

test('node-redis big values', async (t) => {
  const key = keysOf(t);
  assert.equal(await client.set(key('k'), BIG), 'OK');
  for (let turn = 0; turn < 3; turn += 1) {
    assert.ok(BIG.equals(await asBuffers(client).get(key('k'))));
  }
});

test('node-redis: the second read is a hit', { skip: !hasNearside && 'no cache without Nearside' }, async (t) => {
  const key = keysOf(t);
  await client.set(key('k'), 'v');
  const before = await cacheHits();
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await cacheHits(), before);
  assert.equal(await client.get(key('k')), 'v');
  assert.equal(await cacheHits(), before + 1);
});

test('node-redis: a killed client connects again', async (t) => {
  const key = keysOf(t);
  await client.set(key('k'), 'v');
  const id = await client.clientId();
  const killer = await connect();
  // What is asked for before the client has noticed is lost with the connection.
  const connectedAgain = new Promise((resolve) => { client.once('ready', resolve); });
  assert.equal(await killer.clientKill({ filter: 'ID', id }), 1);
  killer.destroy();
  await connectedAgain;
  assert.equal(await client.get(key('k')), 'v');
  assert.notEqual(await client.clientId(), id);
});

test('node-redis: killed upstream connections are made anew', async (t) => {
  const key = keysOf(t);
  await client.set(key('k'), 'before');
  assert.equal(await client.get(key('k')), 'before');
  const id = await client.clientId();
  assert.ok(await killUpstreamConnections() > 0);
  await untilItSucceeds(() => client.set(key('k'), 'after'), isLostUpstream);
  assert.equal(await client.get(key('k')), 'after');
  // The client's own connection has not noticed.
  if (hasNearside) assert.equal(await client.clientId(), id);
});

function isLostUpstream(error) {
  return hasNearside ? error instanceof ErrorReply && error.message.startsWith('UPSTREAM ') : !client.isReady;
}

test('node-redis: errors are the server\'s', async (t) => {
  const key = keysOf(t);
  await client.rPush(key('l'), '1');
  await assert.rejects(client.get(key('l')), (error) => error instanceof ErrorReply && error.message === WRONG_TYPE);
  await assert.rejects(client.sendCommand(['NOSUCH']), (error) => (
    error instanceof ErrorReply && error.message.startsWith("ERR unknown command 'NOSUCH'")
  ));
  assert.equal(await client.ping(), 'PONG');
});

test('node-redis: many clients read what they wrote', async (t) => {
  const key = keysOf(t);
  const [clients, turns] = [50, 100];
  await Promise.all(numbersBelow(clients).map(async (number) => {
    const client = await connect();
    const own = `${t.name}:${number}`;
    for (const turn of numbersBelow(turns)) {
      await client.set(own, String(turn));
      assert.equal(await client.get(own), String(turn));
      assert.equal(await client.get(own), String(turn));
      await client.incr(key('total'));
    }
    await client.close();
  }));
  assert.equal(await client.get(key('total')), String(clients * turns));
});
