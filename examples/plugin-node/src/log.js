// The log: lines of JSON on standard error, in the form of hclog, which appear in
// Lockwood's log with plugin=lockwood-filekey. A line names no more than what its
// caller wrote out: no request and no error object is ever printed whole.

/** Writes a line of the level "error". */
export function error(message, fields) {
  process.stderr.write(JSON.stringify({ '@level': 'error', '@message': message, ...fields }) + '\n');
}
