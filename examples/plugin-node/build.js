// Bundles the plugin into one executable file, dist/lockwood-filekey: Lockwood
// runs a copy of that file, alone in a private directory, where a node_modules
// would not be found. Another file can be named: node build.js FILE.
//
// The bundle is CommonJS because its name, which is lockwood- and the scheme, has
// no ending by which Node.js could know a module. The package.json beside it says
// so, for a start out of this directory.

import { chmodSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const file = process.argv[2] ?? join(here, 'dist', 'lockwood-filekey');

await build({
  entryPoints: [join(here, 'src', 'main.js')],
  outfile: file,
  bundle: true,
  platform: 'node',
  target: 'node18',
  format: 'cjs',
  banner: { js: '#!/usr/bin/env node' },
  loader: { '.proto': 'text' }, // the protocol itself is part of the program
  legalComments: 'inline',
  logLevel: 'warning',
});
chmodSync(file, 0o755);
writeFileSync(join(dirname(file), 'package.json'), '{"type": "commonjs"}\n');
