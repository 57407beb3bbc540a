// ioredis, told one Sentinel: Nearside, that names itself as the primary.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import Redis from 'ioredis';

import { address, hasNearside } from './servers.js';
import { keysOf } from './values.js';

test('ioredis sentinel: the primary is Nearside', { skip: !hasNearside }, async (t) => {
  const key = keysOf(t);
  const client = new Redis({ sentinels: [address], name: 'mymaster' });
  assert.equal(await client.set(key('k'), 'v'), 'OK');
  assert.equal(await client.get(key('k')), 'v');
  const killer = new Redis(address);
  assert.ok(await killer.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes') > 0);
  killer.disconnect();
  assert.equal(await client.get(key('k')), 'v');
  client.disconnect();
});
