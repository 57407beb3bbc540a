// node-redis' createCluster with its default settings: Nearside is the only node that it is told of, and finds.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createClient, createCluster } from 'redis';

import { address, isCluster, killUpstreamConnections } from './servers.js';
import { keysOf, numbersBelow, untilItSucceeds, WRONG_TYPE } from './values.js';

const url = `redis://${address.host}:${address.port}`;

describe('node-redis before a cluster', { skip: !isCluster && 'before a standalone server Nearside shows no cluster' }, () => {
  let client;
  before(async () => {
    client = createCluster({ rootNodes: [{ url }] });
    client.on('error', () => {}); // lost connections are made anew
    await client.connect();
  });
  after(() => client.destroy());

  test('node-redis cluster: one node has every slot', () => {
    assert.deepEqual(client.masters.map(({ host, port }) => [host, port]), [[address.host, address.port]]);
    assert.equal(client.replicas.length, 0);
    assert.equal(client.slots.filter(({ master }) => master === client.masters[0]).length, 16384);
  });

  test('node-redis cluster: strings, hashes, and commands with keys of one slot', async (t) => {
    const key = keysOf(t);
    assert.equal(await client.set(key('k'), 'v'), 'OK');
    assert.equal(await client.get(key('k')), 'v');
    assert.equal(await client.get(key('k')), 'v');
    assert.equal(await client.get(key('nosuch')), null);
    assert.equal(await client.hSet(key('h'), { f: 'v', g: 'w' }), 2);
    assert.deepEqual({ ...await client.hGetAll(key('h')) }, { f: 'v', g: 'w' });
    assert.equal(await client.mSet({ [key('a')]: '1', [key('b')]: '2' }), 'OK');
    assert.deepEqual(await client.mGet([key('a'), key('nosuch'), key('b')]), ['1', null, '2']);
    assert.equal(await client.del([key('a'), key('b')]), 2);
    await assert.rejects(client.get(key('h')), { message: WRONG_TYPE });
  });

  test('node-redis cluster: pipelines', async (t) => {
    // What is sent in one turn of the event loop goes out together. Keys of every slot.
    const keys = numbersBelow(5_000).map((number) => `${t.name}:${number}`);
    await Promise.all(keys.map((name) => client.set(name, name)));
    assert.deepEqual(await Promise.all(keys.map((name) => client.get(name))), keys);
    const key = keysOf(t);
    const multi = client.multi();
    for (const number of numbersBelow(100)) multi.set(key(number), `${number}`).get(key(number));
    const read = (await multi.execAsPipeline()).filter((_, place) => place % 2 === 1);
    assert.deepEqual(read, numbersBelow(100).map(String));
  });

  test('node-redis cluster: reads from replicas are reads from the one node', async (t) => {
    const reader = createCluster({ rootNodes: [{ url }], useReplicas: true });
    await reader.connect();
    assert.equal(await reader.set(keysOf(t)('k'), 'v'), 'OK');
    assert.equal(await reader.get(keysOf(t)('k')), 'v');
    reader.destroy();
  });

  test('node-redis cluster: it connects again when it was killed, and outlives connections upstream', async (t) => {
    const key = keysOf(t);
    await client.set(key('k'), 'v');
    const killer = await createClient({ url }).connect();
    assert.ok(await killer.sendCommand(['CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes']) > 0);
    killer.destroy();
    const isPassing = ({ message }) => /closed|UPSTREAM/i.test(message);
    assert.equal(await untilItSucceeds(() => client.get(key('k')), isPassing), 'v');
    assert.ok(await killUpstreamConnections() > 0);
    assert.equal(await untilItSucceeds(() => client.set(key('k'), 'w'), isPassing), 'OK');
    assert.equal(await client.get(key('k')), 'w');
    assert.equal(client.masters.length, 1);
  });
});
