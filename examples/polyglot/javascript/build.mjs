// node build.mjs WIT OUT: makes the component.
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [wit, out] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath: new URL('slug.js', import.meta.url).pathname,
  witPath: wit,
  worldName: 'pure-activity',
  // What is left out is not imported: the component computes, and that is all.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(out, component);
