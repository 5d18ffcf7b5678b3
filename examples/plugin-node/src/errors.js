// How a failure crosses to Lockwood. What counts is not the gRPC code but the
// ErrorDetail in the status: only a plugin that says "denied" in as many words
// makes Lockwood drop its data keys, and whatever says nothing is an outage.

import { Metadata, status } from '@grpc/grpc-js';

import { ERROR_DETAIL_URL, ErrorDetail, Reason, Status } from './protocol.js';

/** A failure that means something to Lockwood. Its text is for the operator and holds no secret. */
class Failure extends Error {
  constructor(reason, code, text) {
    super(text);
    this.reason = reason;
    this.code = code;
  }
}

/** The key URI is wrong until the operator changes it. Only from Configure. */
export const invalidConfiguration = (text) =>
  new Failure(Reason.ERROR_REASON_INVALID_CONFIGURATION, status.INVALID_ARGUMENT, text);

/** No key is there yet. */
export const keyMissing = (text) => new Failure(Reason.ERROR_REASON_KEY_MISSING, status.FAILED_PRECONDITION, text);

/** The use of the key is refused: an answer, which ends the use of the data keys too. */
export const keyDenied = (text) => new Failure(Reason.ERROR_REASON_KEY_DENIED, status.PERMISSION_DENIED, text);

/** There was no answer. Lockwood asks again. */
export const unavailable = (text) => new Failure(Reason.ERROR_REASON_UNAVAILABLE, status.UNAVAILABLE, text);

/** The wrap does not open. The text is always the same: which part of it was wrong is not told. */
export const invalidCiphertext = () =>
  new Failure(Reason.ERROR_REASON_INVALID_CIPHERTEXT, status.DATA_LOSS, 'invalid ciphertext');

/** The call breaks the protocol. Lockwood makes none such; it counts as no answer. */
export const invalidCall = (text) => new Failure(Reason.ERROR_REASON_UNSPECIFIED, status.INVALID_ARGUMENT, text);

/** Says whether an error is one of the above, and not a defect. */
export const isFailure = (error) => error instanceof Failure;

/**
 * Returns an error in the form that a handler of @grpc/grpc-js passes on. The text
 * of an error that is not a Failure stays here, since nobody vouched for it.
 */
export function toStatus(error) {
  const known = isFailure(error);
  const code = known ? error.code : status.INTERNAL;
  const message = known ? error.message : 'the plugin failed; its log says how';
  const detail = ErrorDetail.encode({ reason: known ? error.reason : Reason.ERROR_REASON_UNSPECIFIED }).finish();
  const metadata = new Metadata();
  const details = [{ type_url: ERROR_DETAIL_URL, value: detail }];
  metadata.set('grpc-status-details-bin', Buffer.from(Status.encode({ code, message, details }).finish()));
  return { code, details: message, metadata };
}
