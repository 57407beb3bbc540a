// What tests/clients/with-upstream tells of the servers that it started.

import { createClient } from 'redis';

if (!process.env.NEARSIDE_ADDRESS) {
  throw new Error('run it so: tests/clients/with-upstream npm --prefix tests/clients/node test');
}
const [host, port] = process.env.NEARSIDE_ADDRESS.split(':');

/** Where clients connect. */
export const address = { host, port: Number(port) };

/** False when clients reach the Redis itself. */
export const hasNearside = Boolean(process.env.NEARSIDE_ADMIN);

/** The upstream is a Redis Cluster. */
export const isCluster = process.env.NEARSIDE_TEST_UPSTREAM === 'cluster';

/** How many reads the cache has answered so far. */
export async function cacheHits() {
  const response = await fetch(`http://${process.env.NEARSIDE_ADMIN}/metrics`);
  const lines = (await response.text()).matchAll(/^nearside_cache_hits_total(?:\{.*\})? (\S+)$/gm);
  return [...lines].reduce((sum, [, count]) => sum + Number(count), 0);
}

/** Has the Redis servers close every connection but the one that asks for it. Gives how many these were. */
export async function killUpstreamConnections() {
  let killed = 0;
  for (const port of process.env.NEARSIDE_TEST_UPSTREAM_PORTS.split(' ')) {
    const server = await createClient({ socket: { host: '127.0.0.1', port: Number(port) } }).connect();
    for (const kind of ['normal', 'pubsub']) {
      killed += await server.sendCommand(['CLIENT', 'KILL', 'TYPE', kind, 'SKIPME', 'yes']);
    }
    server.destroy();
  }
  return killed;
}
