import { createHmac } from 'node:crypto';

/** How long a token is valid, in seconds. */
const life = 600;

/**
 * Signs a token that names the user, by HS256 (RFC 7515, section 3.1), valid for 10 minutes. It is for a program that has
 * FOREST_AUTH_SECRET, as the workflow executor: whoever has that can act as every user, so a program that acts for one user only
 * is given a token of that user's instead.
 * @param {string} authSecret the value of FOREST_AUTH_SECRET
 * @param {number} userId from 1 to 2147483647
 * @returns {string}
 */
export function signUserToken(authSecret, userId) {
  if (typeof authSecret !== 'string' || authSecret === '') throw new TypeError('the auth secret is empty');
  if (!Number.isInteger(userId) || userId < 1 || userId > 2_147_483_647) throw new TypeError('the user ID has to be an integer from 1 to 2147483647');
  const now = Math.floor(Date.now() / 1000);
  const encode = (/** @type {object} */ part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const text = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ id: userId, iat: now, exp: now + life })}`;
  return `${text}.${createHmac('sha256', authSecret).update(text).digest('base64url')}`;
}
