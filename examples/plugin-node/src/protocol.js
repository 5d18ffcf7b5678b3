// plugins/keyprovider.proto as this program uses it. The file itself is bundled,
// not a translation of it, so that the two cannot drift apart.

import { fromJSON } from '@grpc/proto-loader';
import protobuf from 'protobufjs';

import keyProvider from '../../../plugins/keyprovider.proto';
import rpcStatus from './status.proto';

const PACKAGE = 'lockwood.keyprovider.v1';

// Parsing a text follows no imports; what these two import comes with protobufjs.
const root = new protobuf.Root();
for (const name of ['any', 'duration']) {
  root.addJSON(protobuf.common.get(`google/protobuf/${name}.proto`).nested);
}
protobuf.parse(keyProvider, root);
protobuf.parse(rpcStatus, root);
root.resolveAll();

/** The service, in the form that grpc.Server.addService takes. */
export const service = fromJSON(root.toJSON(), { defaults: true })[`${PACKAGE}.KeyProviderService`];

/** The messages of an error. */
export const ErrorDetail = root.lookupType(`${PACKAGE}.ErrorDetail`);
export const Status = root.lookupType('google.rpc.Status');

/** The name of the type of ErrorDetail in a google.protobuf.Any. */
export const ERROR_DETAIL_URL = `type.googleapis.com/${PACKAGE}.ErrorDetail`;

/** The numbers of ErrorReason and of HealthState, by their names. */
export const Reason = root.lookupEnum(`${PACKAGE}.ErrorReason`).values;
export const Health = root.lookupEnum(`${PACKAGE}.HealthState`).values;
