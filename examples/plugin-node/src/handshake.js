// The first words between Lockwood and a plugin, before any gRPC: how the plugin
// knows that Lockwood started it, which version of the protocol they settle on,
// and the one line in which it says where it listens. They are those of
// hashicorp/go-plugin, as docs/plugins.md describes them.

// The magic cookie is no secret and no protection: it tells a person from a host.
const COOKIE_NAME = 'LOCKWOOD_PLUGIN';
const COOKIE_VALUE = 'f9f3b0c7f1ad4d3c8a0e5d3b6c2a7e94';

// The versions of plugins/keyprovider.proto that this plugin speaks, in order.
const VERSIONS = [1];

// The version of the announcement itself.
const CORE_VERSION = 1;

/** Says whether Lockwood started this process. */
export function startedByHost(env) {
  return env[COOKIE_NAME] === COOKIE_VALUE;
}

/** What a person reads who started the plugin by hand. */
export function introduction(scheme) {
  return `lockwood-${scheme} is a key provider plugin of Lockwood, for keys named by ${scheme}://. It is not
run by hand; Lockwood starts it when such a key is configured. To let it:

  1. put this file into the directory that FOREST_EXECUTOR_PLUGIN_DIR names;
  2. run: lockwood plugin pin --env PATH lockwood-${scheme}
  3. set FOREST_EXECUTOR_KEY_PROVIDER=${scheme}:///path/of/the/key/file
`;
}

/**
 * Returns the highest version that both sides speak. Without one it is our lowest:
 * Lockwood then tells the operator which releases go together.
 */
export function negotiate(env) {
  const offered = (env.PLUGIN_PROTOCOL_VERSIONS ?? '').split(',').map(Number);
  const common = VERSIONS.filter((version) => offered.includes(version));
  return common.at(-1) ?? VERSIONS[0];
}

/** Returns the announcement: the only line that is ever written to standard output. */
export function announcement(version, socket, certificate) {
  const base64 = Buffer.from(certificate).toString('base64').replace(/=+$/, '');
  return [CORE_VERSION, version, 'unix', socket, 'grpc', base64].join('|') + '\n';
}
