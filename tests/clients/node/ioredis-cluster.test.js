// ioredis' Cluster with its default settings: Nearside is the only node that it is told of, and finds.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import Redis from 'ioredis';

import { address, isCluster, killUpstreamConnections } from './servers.js';
import { keysOf, numbersBelow, untilItSucceeds, WRONG_TYPE } from './values.js';

describe('ioredis before a cluster', { skip: !isCluster && 'before a standalone server Nearside shows no cluster' }, () => {
  let client;
  before(() => { client = new Redis.Cluster([address]); });
  after(() => client.disconnect());

  test('ioredis cluster: one node has every slot', async () => {
    await client.ping();
    assert.deepEqual(client.nodes('all').map(({ options }) => [options.host, options.port]), [[address.host, address.port]]);
    assert.equal(client.nodes('slave').length, 0);
    const [[first, last, [host, port, id]]] = await client.cluster('SLOTS');
    assert.deepEqual([first, last, host, port, id], [0, 16383, address.host, address.port, await client.cluster('MYID')]);
    assert.match(await client.cluster('INFO'), /^cluster_state:ok\r\n/);
  });

  test('ioredis cluster: strings, hashes, and commands with keys of one slot', async (t) => {
    const key = keysOf(t);
    assert.equal(await client.set(key('k'), 'v'), 'OK');
    assert.equal(await client.get(key('k')), 'v');
    assert.equal(await client.get(key('k')), 'v');
    assert.equal(await client.get(key('nosuch')), null);
    assert.equal(await client.hset(key('h'), { f: 'v', g: 'w' }), 2);
    assert.deepEqual({ ...await client.hgetall(key('h')) }, { f: 'v', g: 'w' });
    assert.equal(await client.mset(key('a'), 1, key('b'), 2), 'OK');
    assert.deepEqual(await client.mget(key('a'), key('nosuch'), key('b')), ['1', null, '2']);
    assert.equal(await client.del(key('a'), key('b')), 2);
    await assert.rejects(client.get(key('h')), { message: WRONG_TYPE });
  });

  test('ioredis cluster: pipelines', async (t) => {
    const pipeline = client.pipeline();
    const key = keysOf(t);
    for (const number of numbersBelow(5_000)) pipeline.set(key(number), number).get(key(number));
    const read = (await pipeline.exec()).filter((_, place) => place % 2 === 1);
    assert.deepEqual(read, numbersBelow(5_000).map((number) => [null, String(number)]));
    // Keys of every slot, each command by itself.
    const keys = numbersBelow(1_000).map((number) => `${t.name}:${number}`);
    await Promise.all(keys.map((name) => client.set(name, name)));
    assert.deepEqual(await Promise.all(keys.map((name) => client.get(name))), keys);
  });

  test('ioredis cluster: reads from replicas are reads from the one node', async (t) => {
    const reader = new Redis.Cluster([address], { scaleReads: 'slave' });
    assert.equal(await reader.set(keysOf(t)('k'), 'v'), 'OK');
    assert.equal(await reader.get(keysOf(t)('k')), 'v');
    reader.disconnect();
  });

  test('ioredis cluster: it connects again when it was killed, and outlives connections upstream', async (t) => {
    const key = keysOf(t);
    await client.set(key('k'), 'v');
    const killer = new Redis(address);
    assert.ok(await killer.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes') > 0);
    killer.disconnect();
    const isPassing = ({ message }) => /closed|UPSTREAM|refresh slots/.test(message);
    assert.equal(await untilItSucceeds(() => client.get(key('k')), isPassing), 'v');
    assert.ok(await killUpstreamConnections() > 0);
    assert.equal(await untilItSucceeds(() => client.set(key('k'), 'w'), isPassing), 'OK');
    assert.equal(await client.get(key('k')), 'w');
    assert.equal(client.nodes('all').length, 1);
  });
});
