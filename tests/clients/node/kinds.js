// A test for each kind of a library's clients: of one server, and of a cluster where the upstream is one.

import { test } from 'node:test';

import { hasNearside, isCluster } from './servers.js';
import { keysOf } from './values.js';

/**
 * `kinds` names the library's clients; `but` those that a test is not for, and why; each makes a client that is connected, and `close` ends it. The test is given `connect`,
 * for as many clients as it needs, a way to name keys of its own, and the kind's name.
 */
export function eachKind(kinds, close) {
  return (name, body, { but } = {}) => {
    for (const [kind, make] of Object.entries(kinds)) {
      const wantsCluster = kind.endsWith('cluster');
      const skip = but?.[kind] ? but[kind]
        : wantsCluster && !isCluster ? 'before a standalone server Nearside shows no cluster'
        : !wantsCluster && isCluster && !hasNearside ? 'without Nearside a client of one server cannot use a cluster' : false;
      test(`${kind} ${name}`, { skip }, async (t) => {
        const clients = [];
        const connect = async () => {
          const client = await make();
          clients.push(client);
          return client;
        };
        try {
          await body({ connect, key: keysOf(t), kind });
        } finally {
          await Promise.all(clients.map(close));
        }
      });
    }
  };
}
