// node-redis: transactions, scripts, and the locks that are made of them.

import assert from 'node:assert/strict';

import { createHash } from 'node:crypto';
import { WatchError } from 'redis';

import { eachNodeRedis } from './node-redis-kinds.js';
import { numbersBelow, WRONG_TYPE } from './values.js';

eachNodeRedis('transactions: every reply', async ({ connect, key }) => {
  const client = await connect();
  const replies = await client.multi().set(key('k'), 'v').get(key('k')).incrBy(key('n'), 5).rPush(key('l'), ['1', '2']).exec();
  assert.deepEqual(replies, ['OK', 'v', 5, 2]);
});

eachNodeRedis('transactions: errors of commands inside', async ({ connect, key }) => {
  const client = await connect();
  const failed = client.multi().set(key('k'), 'v').lPush(key('k'), '1').set(key('o'), 'w').exec();
  await assert.rejects(failed, (error) => error.replies[1].message === WRONG_TYPE);
  assert.equal(await client.get(key('o')), 'w');
});

eachNodeRedis('watch: no increment is lost', async ({ connect, key }) => {
  const [clients, turns] = [8, 25];
  let lost = 0;
  const increment = async (client) => {
    await client.watch(key('n'));
    const value = Number(await client.get(key('n')));
    return client.multi().set(key('n'), String(value + 1)).exec();
  };
  await Promise.all(numbersBelow(clients).map(async () => {
    const client = await connect();
    for (let turn = 0; turn < turns;) {
      try {
        await increment(client);
        turn += 1;
      } catch (error) {
        if (!(error instanceof WatchError)) throw error;
        lost += 1;
      }
    }
  }));
  assert.equal(await (await connect()).get(key('n')), String(clients * turns));
  assert.ok(lost > 0, 'else nobody was in anybody\'s way, and this tested nothing');
}, { but: { 'node-redis cluster': 'it has no WATCH' } });

eachNodeRedis('scripts: loaded when the server lacks them', async ({ connect, key }) => {
  const client = await connect();
  const script = `-- ${key('')}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])`;
  const digest = createHash('sha1').update(script).digest('hex');
  const call = { keys: [key('n')], arguments: ['5'] };
  await assert.rejects(client.evalSha(digest, call), /NOSCRIPT/);
  assert.equal(await client.eval(script, call), 5);
  assert.equal(await client.evalSha(digest, call), 10);
});

eachNodeRedis('locks: one is inside at a time', async ({ connect, key }) => {
  const [clients, turns] = [6, 10];
  const release = 'if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end return 0';
  await Promise.all(numbersBelow(clients).map(async (number) => {
    const client = await connect();
    for (const turn of numbersBelow(turns)) {
      const token = `${number}:${turn}`;
      while (await client.set(key('lock'), token, { condition: 'NX', expiration: { type: 'PX', value: 30_000 } }) !== 'OK') {
        await new Promise((resume) => { setTimeout(resume, 1); });
      }
      // Not atomic by itself.
      await client.set(key('n'), String(Number(await client.get(key('n'))) + 1));
      assert.equal(await client.eval(release, { keys: [key('lock')], arguments: [token] }), 1);
    }
  }));
  assert.equal(await (await connect()).get(key('n')), String(clients * turns));
});
