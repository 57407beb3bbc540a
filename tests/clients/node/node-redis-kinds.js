// The kinds of node-redis' clients, with their default settings.

import { createClient, createCluster } from 'redis';

import { eachKind } from './kinds.js';
import { address } from './servers.js';

const url = `redis://${address.host}:${address.port}`;

function connected(client) {
  // Without a listener, losing the connection would end the program.
  client.on('error', () => {});
  return client.connect();
}

export const eachNodeRedis = eachKind({
  'node-redis': () => connected(createClient({ url })),
  'node-redis cluster': () => connected(createCluster({ rootNodes: [{ url }] })),
}, (client) => client.destroy());
