// BullMQ: a queue with a worker of its own, events, and jobs that wait for others.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FlowProducer, Queue, QueueEvents, Worker } from 'bullmq';

import { address, hasNearside, isCluster } from './servers.js';
import { numbersBelow } from './values.js';

const skip = isCluster && !hasNearside && 'without Nearside a client of one server cannot use a cluster';

// Its scripts take several keys: on a cluster they need a hash tag in common.
const settings = { connection: { host: address.host, port: address.port }, prefix: '{bullmq}' };

test('bullmq queues: jobs are done once, tried again, and in order of priority', { skip }, async () => {
  const closed = [];
  const kept = (thing) => { closed.push(thing); return thing; };
  try {
    const queue = kept(new Queue('doubles', settings));
    const events = kept(new QueueEvents('doubles', settings));
    await events.waitUntilReady();
    const done = [];
    const worker = kept(new Worker('doubles', async (job) => {
      if (job.name === 'flaky' && job.attemptsMade < 2) throw new Error('not yet');
      done.push(job.data.number);
      return job.data.number * 2;
    }, { ...settings, concurrency: 4 }));
    worker.on('error', (error) => { throw error; });

    const jobs = await queue.addBulk(numbersBelow(50).map((number) => ({ name: 'double', data: { number } })));
    const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, 30_000)));
    assert.deepEqual(results, numbersBelow(50).map((number) => number * 2));
    assert.deepEqual(done.toSorted((a, b) => a - b), numbersBelow(50));

    const flaky = await queue.add('flaky', { number: 21 }, { attempts: 3, backoff: { type: 'fixed', delay: 10 } });
    assert.equal(await flaky.waitUntilFinished(events, 30_000), 42);
    const delayed = await queue.add('double', { number: 4 }, { delay: 100 });
    assert.equal(await delayed.waitUntilFinished(events, 30_000), 8);
    assert.deepEqual(await queue.getJobCounts('completed', 'failed'), { completed: 52, failed: 0 });
  } finally {
    for (const thing of closed.toReversed()) await thing.close();
  }
});

test('bullmq queues: a flow waits for its children', { skip }, async () => {
  const flow = new FlowProducer(settings);
  const events = new QueueEvents('flows', settings);
  const worker = new Worker('flows', async (job) => {
    const children = Object.values(await job.getChildrenValues());
    return children.reduce((sum, value) => sum + value, job.data.number);
  }, settings);
  try {
    await events.waitUntilReady();
    const children = numbersBelow(5).map((number) => ({ name: 'child', queueName: 'flows', data: { number } }));
    const { job } = await flow.add({ name: 'parent', queueName: 'flows', data: { number: 100 }, children });
    assert.equal(await job.waitUntilFinished(events, 30_000), 110);
  } finally {
    await worker.close();
    await events.close();
    await flow.close();
  }
});
