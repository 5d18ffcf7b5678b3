/**
 * Signs a token that names the user, by HS256 (RFC 7515, section 3.1), valid for 10 minutes. It is for a program that has
 * FOREST_AUTH_SECRET, as the workflow executor: whoever has that can act as every user, so a program that acts for one user only
 * is given a token of that user's instead.
 * @param {string} authSecret the value of FOREST_AUTH_SECRET
 * @param {number} userId from 1 to 2147483647
 * @returns {string}
 */
export declare function signUserToken(authSecret: string, userId: number): string;
