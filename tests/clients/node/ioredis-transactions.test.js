// ioredis: transactions, scripts, and the locks that are made of them.

import assert from 'node:assert/strict';

import { eachIoredis } from './ioredis-kinds.js';
import { numbersBelow, WRONG_TYPE } from './values.js';

eachIoredis('transactions: every reply', async ({ connect, key }) => {
  const client = await connect();
  const replies = await client.multi().set(key('k'), 'v').get(key('k')).incrby(key('n'), 5).rpush(key('l'), 1, 2).exec();
  assert.deepEqual(replies, [[null, 'OK'], [null, 'v'], [null, 5], [null, 2]]);
});

eachIoredis('transactions: errors of commands inside', async ({ connect, key }) => {
  const client = await connect();
  const replies = await client.multi().set(key('k'), 'v').lpush(key('k'), 1).set(key('o'), 'w').exec();
  assert.equal(replies[1][0].message, WRONG_TYPE);
  assert.equal(await client.get(key('o')), 'w');
});

eachIoredis('transactions: a command that is none undoes all', async ({ connect, key }) => {
  const client = await connect();
  await assert.rejects(client.multi().set(key('k'), 'v').set(key('k')).exec(), /EXECABORT/);
  assert.equal(await client.exists(key('k')), 0);
});

eachIoredis('watch: no increment is lost', async ({ connect, key }) => {
  const [clients, turns] = [8, 25];
  let lost = 0;
  const increment = async (client) => {
    await client.watch(key('n'));
    const value = Number(await client.get(key('n')));
    return await client.multi().set(key('n'), value + 1).exec() !== null;
  };
  await Promise.all(numbersBelow(clients).map(async () => {
    const client = await connect();
    for (let turn = 0; turn < turns;) {
      if (await increment(client)) turn += 1; else lost += 1;
    }
  }));
  assert.equal(await (await connect()).get(key('n')), String(clients * turns));
  assert.ok(lost > 0, 'else nobody was in anybody\'s way, and this tested nothing');
}, { but: { 'ioredis cluster': 'it may send WATCH and EXEC on different connections' } });

eachIoredis('scripts: loaded when the server lacks them', async ({ connect, key }) => {
  const client = await connect();
  const lua = `-- ${key('')}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])`;
  client.defineCommand('addTo', { numberOfKeys: 1, lua });
  assert.deepEqual([await client.addTo(key('n'), 5), await client.addTo(key('n'), 5)], [5, 10]);
  await assert.rejects(client.evalsha('0'.repeat(40), 1, key('n')), /^ReplyError: NOSCRIPT/);
});

eachIoredis('locks: one is inside at a time', async ({ connect, key }) => {
  const [clients, turns] = [6, 10];
  const release = 'if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end return 0';
  await Promise.all(numbersBelow(clients).map(async (number) => {
    const client = await connect();
    for (const turn of numbersBelow(turns)) {
      const token = `${number}:${turn}`;
      while (await client.set(key('lock'), token, 'PX', 30_000, 'NX') !== 'OK') {
        await new Promise((resume) => { setTimeout(resume, 1); });
      }
      // Not atomic by itself.
      await client.set(key('n'), Number(await client.get(key('n'))) + 1);
      assert.equal(await client.eval(release, 1, key('lock'), token), 1);
    }
  }));
  assert.equal(await (await connect()).get(key('n')), String(clients * turns));
});
