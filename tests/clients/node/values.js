// What is written and read.

import { randomBytes } from 'node:crypto';

export const EVERY_BYTE = Buffer.from(Array.from({ length: 256 }, (_, value) => value));

export const BIG = randomBytes(8 * 1024 * 1024);

export const WRONG_TYPE = 'WRONGTYPE Operation against a key holding the wrong kind of value';

/** Names keys of one test's own. They are all in one slot, so that one command may name several. */
export function keysOf(test) {
  return (name) => `{node:${test.name}}${name}`;
}

export function numbersBelow(end) {
  return Array.from({ length: end }, (_, number) => number);
}

/** Calls `attempt` until it succeeds. An error that `isPassing` does not know is thrown. */
export async function untilItSucceeds(attempt, isPassing) {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isPassing(error)) throw error;
      await new Promise((resume) => setTimeout(resume, 10));
    }
  }
}

/** What a listener, that `begin` is given, has heard after so many times. */
export function heard(count, begin) {
  const all = [];
  return new Promise((resolve) => {
    begin((message) => {
      all.push(message);
      if (all.length === count) resolve(all);
    });
  });
}
