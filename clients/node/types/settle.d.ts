/**
 * How long after a replacement a 401 counts as the answer to a request that was sent before it, in milliseconds. Who reports a 401 does
 * not say which token it was for, and a token that was just given out would be rejected for it.
 */
export declare const settleMs = 10000;
