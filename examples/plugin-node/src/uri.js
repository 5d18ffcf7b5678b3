// The key URI: filekey:///path/of/the/file. Whatever cannot be honoured is refused
// with what to write instead. A misspelt option that was ignored could leave a key
// less protected than its operator believes. No error repeats a value of the URI,
// since a key may have been pasted there.

import { invalidConfiguration } from './errors.js';
import { SCHEME } from './filekey.js';

const MAX_SIZE = 4096; // bytes: plugins/keyprovider.proto
const MAX_PATH = 900; // bytes, so that the KEK ID keeps to 1024

const OPTION_NAME = /^[a-z0-9_]{1,31}$/; // anything longer may be a key

const PREFIX = `${SCHEME}://`;
const REMEDY = `write ${PREFIX}/path/of/the/file`;

/** Returns the path that a key URI names. */
export function parsePath(uri) {
  if (Buffer.byteLength(uri) > MAX_SIZE || !uri.startsWith(PREFIX)) {
    throw invalidConfiguration(`the key URI is not one of ${PREFIX}, or longer than ${MAX_SIZE} bytes; ${REMEDY}`);
  }
  const [location, query] = uri.slice(PREFIX.length).split(/\?(.*)/s);
  if (query) {
    const names = query.split('&').map((option) => option.split('=')[0]).filter((name) => OPTION_NAME.test(name));
    throw invalidConfiguration(`key URI ${PREFIX}: unknown option ${names.join(', ')}; this provider takes none; ${REMEDY}`);
  }
  if (!location.startsWith('/')) {
    throw invalidConfiguration(`key URI ${PREFIX}: a host is named, or no absolute path; ${REMEDY}, with three '/'`);
  }
  return checkPath(decode(location));
}

function decode(location) {
  try {
    return decodeURIComponent(location);
  } catch {
    throw invalidConfiguration(`key URI ${PREFIX}: the path has a '%' that two hexadecimal digits of UTF-8 do not follow; write a '%' as %25`);
  }
}

// One file has one name: the path is part of the KEK ID.
function checkPath(path) {
  const parts = path.slice(1).split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..') || path.includes('\0')) {
    throw invalidConfiguration(`key URI ${PREFIX}: the path names no file, or has an empty part, '.' or '..'; write it out`);
  }
  if (Buffer.byteLength(path) > MAX_PATH) {
    throw invalidConfiguration(`key URI ${PREFIX}: the path has more than ${MAX_PATH} bytes; move the file up`);
  }
  return path;
}
