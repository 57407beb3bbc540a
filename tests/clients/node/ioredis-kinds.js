// The kinds of ioredis' clients, with their default settings.

import Redis from 'ioredis';

import { eachKind } from './kinds.js';
import { address } from './servers.js';

export const eachIoredis = eachKind({
  ioredis: () => new Redis(address),
  'ioredis cluster': () => new Redis.Cluster([address]),
}, (client) => client.disconnect());
